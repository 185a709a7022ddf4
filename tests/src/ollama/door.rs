//! Who may speak to an Ollama on loopback at all: its Origin check, then its Host check.

use http::{HeaderMap, Uri, header};
use std::net::IpAddr;

/// What the door says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Come in; a known origin is echoed in `Access-Control-Allow-Origin`.
    Open(Option<String>),
    /// 403 without a body.
    Shut,
}

/// Judges a request by its headers, and by the authority of an absolute target.
pub(crate) fn judge(headers: &HeaderMap, target: &Uri) -> Entry {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let host = target.authority().map_or_else(|| text(header::HOST), |authority| authority.as_str());
    let origin = text(header::ORIGIN);
    let same_origin = origin.split_once("://").is_some_and(|(_, rest)| !host.is_empty() && rest == host);
    let foreign = headers.contains_key(header::ORIGIN) && !same_origin && !known_origin(origin);
    if foreign || !known_host(host) {
        return Entry::Shut;
    }
    Entry::Open((!origin.is_empty() && !same_origin).then(|| origin.to_owned()))
}

fn known_origin(origin: &str) -> bool {
    let Some((scheme, rest)) = origin.split_once("://") else { return false };
    match scheme {
        "app" | "file" | "tauri" | "vscode-webview" | "vscode-file" => true,
        "http" | "https" => matches!(without_port(rest), "localhost" | "127.0.0.1" | "0.0.0.0"),
        _ => false,
    }
}

fn known_host(authority: &str) -> bool {
    let host = without_port(authority);
    if host.is_empty() || host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return near(ip);
    }
    let lower = host.to_ascii_lowercase();
    [".localhost", ".local", ".internal"].iter().any(|zone| lower.ends_with(zone))
}

fn near(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unspecified(),
    }
}

fn without_port(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.find(']').and_then(|end| authority.get(..=end)).unwrap_or(authority);
    }
    authority.split(':').next().unwrap_or_default()
}
