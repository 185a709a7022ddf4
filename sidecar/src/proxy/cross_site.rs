//! Web pages are kept out: a request that a browser sends for a page from elsewhere is refused.
//!
//! Ollama refuses such requests itself, with a bare 403: by `Origin`, and, where it listens on loopback, by `Host`, which
//! is what a page shows that has rebound its own name to a local address (CVE-2024-28224). It sees neither header behind
//! this proxy, so both are judged here, by its default rules; `[::1]` is a local origin too. [`super::cors`] tells
//! browsers which pages may read the answers.
//!
//! A page whose `Origin` names the host that it calls is one of the same site, such as a UI behind the same ingress. It
//! may be a rebound name as well, so on loopback `Host` must pass for itself. Elsewhere a pod is rightly called by any
//! name, and `Host` is not judged.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue};

/// Schemes of pages that come with an application and not from the network.
const APP_SCHEMES: &[&str] = &["app", "file", "tauri", "vscode-webview", "vscode-file"];
const LOCAL_ORIGINS: &[&str] = &["localhost", "127.0.0.1", "0.0.0.0", "[::1]"];
const LOCAL_ZONES: &[&str] = &[".localhost", ".local", ".internal"];

/// Why a request is taken for one of a foreign page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CrossSite {
    #[error("the Origin header names a web page that may not use this API")]
    Origin,
    #[error("the Host header names no local host, though the connection came in on a loopback address")]
    Host,
}

/// The page for which a request is sent, by its `Origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Page {
    /// None: a program sends it.
    None,
    /// One from the host that it calls.
    SameSite,
    /// One that may use this API from elsewhere: its origin, as the browser wrote it.
    Allowed(HeaderValue),
    /// Any other.
    Foreign,
}

impl Page {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(ORIGIN).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Self::None,
            (Some(origin), None) => Self::from_origin(origin, headers.get(HOST)),
            (Some(_), Some(_)) => Self::Foreign,
        }
    }

    fn from_origin(origin: &HeaderValue, host: Option<&HeaderValue>) -> Self {
        let text = lower(origin);
        if host.is_some_and(|host| is_at_host(&text, &lower(host))) {
            Self::SameSite
        } else if is_known_origin(&text) {
            Self::Allowed(origin.clone())
        } else {
            Self::Foreign
        }
    }
}

/// Judges a request for `page` that came in on the address `local`.
pub(crate) fn check(page: &Page, headers: &HeaderMap, local: IpAddr) -> Result<(), CrossSite> {
    if *page == Page::Foreign {
        return Err(CrossSite::Origin);
    }
    let host_counts = local.to_canonical().is_loopback();
    let known = || headers.get(HOST).is_some_and(|host| is_local_host(&lower(host)));
    if host_counts && !known() { Err(CrossSite::Host) } else { Ok(()) }
}

/// What is no text is an empty one.
fn lower(value: &HeaderValue) -> String {
    value.to_str().unwrap_or_default().to_ascii_lowercase()
}

/// Whether an origin is one of a host, whose scheme only the proxy before us knows. A scheme's own port may be left out.
fn is_at_host(origin: &str, host: &str) -> bool {
    let (own_port, authority) = match origin.split_once("://") {
        Some(("http", authority)) => (":80", authority),
        Some(("https", authority)) => (":443", authority),
        _ => return false,
    };
    let bare = |authority| str::strip_suffix(authority, own_port).unwrap_or(authority);
    !bare(host).is_empty() && bare(authority) == bare(host)
}

fn is_known_origin(origin: &str) -> bool {
    let Some((scheme, rest)) = origin.split_once("://") else {
        return false;
    };
    match scheme {
        "http" | "https" => without_port(rest).is_some_and(|host| LOCAL_ORIGINS.contains(&host)),
        _ => APP_SCHEMES.contains(&scheme),
    }
}

fn is_local_host(authority: &str) -> bool {
    let Some(host) = without_port(authority) else {
        return false;
    };
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host == "localhost"
        || bare.parse::<IpAddr>().is_ok()
        || LOCAL_ZONES.iter().any(|zone| host.strip_suffix(zone).is_some_and(|name| !name.is_empty()))
}

/// The host of `host` or `host:port`, an IPv6 address with its brackets; none where what follows it is no port.
fn without_port(authority: &str) -> Option<&str> {
    let end = match authority.find(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at_checked(end)?;
    let port = rest.strip_prefix(':').unwrap_or_default();
    (rest.is_empty() || port.parse::<u16>().is_ok()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const POD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    fn judge(host: &str, origin: Option<&str>, local: IpAddr) -> Result<(), CrossSite> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        check(&Page::of(&headers), &headers, local)
    }

    #[test]
    fn only_local_and_built_in_pages_are_let_in() {
        for origin in [
            "http://localhost",
            "https://LOCALHOST:3000",
            "http://127.0.0.1:8080",
            "https://0.0.0.0",
            "http://[::1]:5173",
            "http://[::1]",
            "app://obsidian.md",
            "file://",
            "tauri://localhost",
            "vscode-webview://1kd2",
            "vscode-file://vscode-app",
        ] {
            assert_eq!(judge("localhost", Some(origin), LOOPBACK), Ok(()), "{origin}");
        }
        for origin in [
            "",
            "null",
            "localhost",
            "http://",
            "https://example.com",
            "http://localhost.example.com",
            "http://localhost:80@example.com",
            "http://localhost:",
            "http://127.0.0.2",
            "http://[::1].example.com",
            "http://\u{e4}",
            "xapp://a",
            "chrome-extension://abc",
        ] {
            let origin = Some(origin);
            assert_eq!(judge("localhost", origin, LOOPBACK), Err(CrossSite::Origin), "{origin:?}");
        }
    }

    #[test]
    fn every_origin_line_counts() {
        let mut headers = HeaderMap::new();
        for origin in ["http://localhost", "http://example.com"] {
            headers.append(ORIGIN, origin.parse().unwrap());
        }
        assert_eq!(Page::of(&headers), Page::Foreign);
    }

    #[test]
    fn a_page_may_call_the_host_that_it_came_from() {
        for (host, origin) in [
            ("chat.example.com", "https://chat.example.com"),
            ("Chat.Example.com", "https://chat.example.com"),
            ("chat.example.com:443", "https://chat.example.com"),
            ("chat.example.com", "https://chat.example.com:443"),
            ("chat.example.com:80", "http://chat.example.com"),
            ("chat.example.com:8443", "https://chat.example.com:8443"),
            ("[2001:db8::1]", "http://[2001:db8::1]"),
        ] {
            assert_eq!(judge(host, Some(origin), POD), Ok(()), "{host} {origin}");
        }
        for (host, origin) in [
            ("chat.example.com", "https://example.com"),
            ("chat.example.com", "https://chat.example.com:8443"),
            ("chat.example.com:80", "https://chat.example.com"),
            ("chat.example.com", "https://chat.example.com.evil.example"),
            ("chat.example.com", "https://chat.example.com/"),
            ("chat.example.com", "ftp://chat.example.com"),
            ("", "https://"),
            (":443", "https://"),
        ] {
            assert_eq!(judge(host, Some(origin), POD), Err(CrossSite::Origin), "{host} {origin}");
        }
    }

    #[test]
    fn on_loopback_a_page_at_a_rebound_name_is_refused_by_its_host() {
        let evil = Some("http://evil.example:11434");
        assert_eq!(judge("evil.example:11434", evil, LOOPBACK), Err(CrossSite::Host));
        assert_eq!(judge("evil.example:11434", evil, POD), Ok(()));
    }

    #[test]
    fn on_loopback_a_host_must_be_local() {
        let local = [
            "localhost",
            "LocalHost:11434",
            "a.localhost",
            "chat.llm.svc.cluster.local:80",
            "host.docker.internal",
            "127.0.0.1:11434",
            "203.0.113.9",
            "[::1]:11434",
            "[2001:db8::1]",
        ];
        for host in local {
            assert_eq!(judge(host, None, LOOPBACK), Ok(()), "{host}");
        }
        for host in
            ["example.com", "evil:80", ".local", "notlocalhost", "localhost:x", "127.0.0.1.example.com"]
        {
            for loopback in [LOOPBACK, "::1".parse().unwrap(), "::ffff:127.0.0.1".parse().unwrap()] {
                assert_eq!(judge(host, None, loopback), Err(CrossSite::Host), "{host}");
            }
            assert_eq!(judge(host, None, POD), Ok(()), "{host}");
        }
    }
}
