//! Web pages are kept out: a request that a browser sends for a page from elsewhere is refused.
//!
//! Ollama refuses such requests itself, with a bare 403: by `Origin`, and, where it listens on loopback, by `Host`, which
//! is what a page shows that has rebound its own name to a local address (CVE-2024-28224). It sees neither header behind
//! this proxy, so both are judged here, by its default rules. Two differences: `[::1]` is a local origin too, and an
//! `Origin` that equals `Host` is no excuse, as no page is served here and a rebound name passes such a test.
//!
//! `Host` is judged only on connections to a loopback address of ours: elsewhere a pod is rightly called by any name.
//! Pages from allowed origins are let in, but no answer carries CORS headers yet, so a browser hides it from them.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

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

/// Judges the head of a request that came in on the address `local`.
pub(crate) fn check(headers: &HeaderMap, local: IpAddr) -> Result<(), CrossSite> {
    let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_ascii_lowercase();
    if !headers.get_all(ORIGIN).iter().all(|origin| is_known_origin(&text(origin))) {
        return Err(CrossSite::Origin);
    }
    let host_counts = local.to_canonical().is_loopback();
    let known = || headers.get(HOST).is_some_and(|host| is_local_host(&text(host)));
    if host_counts && !known() { Err(CrossSite::Host) } else { Ok(()) }
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

    fn judge(host: &str, origin: Option<&str>, local: IpAddr) -> Result<(), CrossSite> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        check(&headers, local)
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
        assert_eq!(check(&headers, LOOPBACK), Err(CrossSite::Origin));
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
            assert_eq!(judge(host, None, "10.0.0.7".parse().unwrap()), Ok(()), "{host}");
        }
    }
}
