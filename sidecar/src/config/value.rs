//! Values of flags that have a form of their own: durations, a pool's name, Ollama's address.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use corral_wire::PoolRef;

/// The longest duration a flag takes: a day.
const MAX_DURATION: Duration = Duration::from_hours(24);

/// A flag's value that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// Not a duration.
    #[error("a duration is a whole number with its unit, such as 500ms, 30s or 5m, and at most 24h")]
    Duration,
    /// Not a pool's name.
    #[error("a pool is named namespace/name")]
    Pool,
    /// Not an address to listen on.
    #[error(
        "an address and a port, such as 127.0.0.1:11434 for this machine alone or [::]:11434 for everybody"
    )]
    Listen,
    /// Not an address of Ollama.
    #[error("an upstream is http://HOST:PORT, such as http://127.0.0.1:11435, without a path")]
    Upstream,
    /// Nobody knows the name.
    #[error("the name {0} has no address")]
    Unresolved(String),
}

pub(super) fn duration(text: &str) -> Result<Duration, BadValue> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or(BadValue::Duration)?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| BadValue::Duration)?;
    let millis_per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(BadValue::Duration),
    };
    let millis = number.checked_mul(millis_per_unit).ok_or(BadValue::Duration)?;
    Some(Duration::from_millis(millis)).filter(|d| *d <= MAX_DURATION).ok_or(BadValue::Duration)
}

pub(super) fn pool(text: &str) -> Result<PoolRef, BadValue> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(PoolRef { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err(BadValue::Pool),
    }
}

/// An address to listen on: `ADDRESS:PORT`, or `localhost:PORT`. A port alone would not say for whom.
pub(super) fn listen(text: &str) -> Result<SocketAddr, BadValue> {
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    let local = local.map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    local.or_else(|| text.parse().ok()).ok_or(BadValue::Listen)
}

/// Ollama's address, from `http://HOST:PORT`.
pub(super) fn upstream(text: &str) -> Result<SocketAddr, BadValue> {
    let uri: http::Uri = text.parse().map_err(|_| BadValue::Upstream)?;
    let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
    let authority = uri.authority().filter(|a| plain && !a.as_str().contains('@'));
    let authority = authority.ok_or(BadValue::Upstream)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    // A laptop's `localhost` need not be asked of a resolver, which a static binary may not have.
    let host = if host.eq_ignore_ascii_case("localhost") { "127.0.0.1" } else { host };
    // Nobody who leaves the port out means 80, and which of Ollama's is meant cannot be known.
    let port = authority.port_u16().ok_or(BadValue::Upstream)?;
    let found = (host, port).to_socket_addrs().ok();
    found.and_then(|mut addresses| addresses.next()).ok_or_else(|| BadValue::Unresolved(host.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_a_bound() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for bad in
            ["", "10", "s", "-1s", "1.5s", "25h", "99999999999999999999s", "18446744073709551615h", "1 s"]
        {
            assert_eq!(duration(bad), Err(BadValue::Duration), "{bad:?}");
        }
    }

    #[test]
    fn an_address_to_listen_on_says_for_whom() {
        let shown = |text: &str| listen(text).map(|address| address.to_string());
        assert_eq!(shown("localhost:11434").unwrap(), "127.0.0.1:11434");
        assert_eq!(shown("[::]:0").unwrap(), "[::]:0");
        for bad in ["11434", ":11434", "localhost", "localhost:x", "127.0.0.1", "http://127.0.0.1:1", ""] {
            assert_eq!(shown(bad), Err(BadValue::Listen), "{bad:?}");
        }
    }

    #[test]
    fn an_upstream_is_a_plain_http_origin() {
        let shown = |text: &str| upstream(text).map(|u| u.to_string());
        assert_eq!(shown("http://127.0.0.1:11435").unwrap(), "127.0.0.1:11435");
        assert_eq!(shown("http://[::1]:9/").unwrap(), "[::1]:9");
        assert_eq!(shown("http://localhost:5").unwrap(), "127.0.0.1:5");
        assert_eq!(shown("http://10.0.0.1:80").unwrap(), "10.0.0.1:80");
        for bad in [
            "https://a:1",
            "127.0.0.1:1",
            "http://10.0.0.1",
            "http://a:1/x",
            "http://u:p@a:1",
            "http://a:1?q",
            "",
        ] {
            assert_eq!(shown(bad), Err(BadValue::Upstream), "{bad:?}");
        }
    }
}
