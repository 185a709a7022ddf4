//! Settings: every flag and environment variable of the operator, read here and nowhere else.

use std::net::{AddrParseError, SocketAddr};
use std::time::Duration;

use clap::Parser;
use corral_telemetry::log::LogFormat;

/// Corral's operator: makes `OllamaPool` and `RateLimitPolicy` true.
#[derive(Debug, Clone, Parser)]
#[command(name = "corral-operator", version)]
pub struct Settings {
    /// Namespaces to work in, separated by commas. Empty: all, which needs cluster-wide rights.
    #[arg(long, env = "CORRAL_WATCH_NAMESPACES", value_delimiter = ',', value_name = "NAMESPACES")]
    pub watch_namespaces: Vec<String>,
    /// The operator's own namespace: its Lease lies there.
    #[arg(long, env = "CORRAL_NAMESPACE", default_value = "corral-system", value_name = "NAMESPACE")]
    pub namespace: String,
    /// The name of the Lease. Two installations side by side need two names.
    #[arg(long, env = "CORRAL_LEASE", default_value = "corral-operator", value_name = "NAME")]
    pub lease: String,
    /// The name of this pod, for events and the Lease.
    #[arg(long, env = "CORRAL_POD_NAME", default_value = "corral-operator", value_name = "NAME")]
    pub pod_name: String,
    /// The sidecar's image where a pool names none.
    #[arg(long, env = "CORRAL_SIDECAR_IMAGE", value_name = "IMAGE")]
    pub sidecar_image: String,
    /// Where `/livez`, `/readyz` and `/metrics` are answered.
    #[arg(long, env = "CORRAL_LISTEN", default_value = "[::]:8080", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Where KEDA's external scaler is answered, in gRPC without TLS, by the replica that leads. Empty, the default: nowhere.
    #[arg(long, env = "CORRAL_KEDA_LISTEN", default_value = "", value_parser = listen, value_name = "ADDRESS:PORT")]
    pub keda_listen: Listen,
    /// How the log is written, to standard error.
    #[arg(long, env = "CORRAL_LOG_FORMAT", value_enum, default_value = "json")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a filter by module.
    #[arg(long, env = "CORRAL_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// The most reconciles at one time, per kind and scope.
pub const PARALLEL_RECONCILES: u16 = 8;
/// Events of one object within this time make one reconcile. Short, for a policy must be everywhere within 2 s.
pub const DEBOUNCE: Duration = Duration::from_millis(50);

/// Where to listen, if anywhere.
pub type Listen = Option<SocketAddr>;

fn listen(text: &str) -> Result<Listen, AddrParseError> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

impl Settings {
    /// The namespaces to work in; none for all.
    pub fn scopes(&self) -> Vec<Option<String>> {
        let mut named: Vec<String> = self.watch_namespaces.clone();
        named.retain(|namespace| !namespace.is_empty());
        named.sort();
        named.dedup();
        if named.is_empty() { vec![None] } else { named.into_iter().map(Some).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(namespaces: &str) -> Vec<Option<String>> {
        let args = ["x", "--sidecar-image", "s", "--watch-namespaces", namespaces];
        Settings::try_parse_from(args).unwrap().scopes()
    }

    #[test]
    fn no_namespace_means_all_and_each_counts_once() {
        assert_eq!(scopes(""), [None]);
        assert_eq!(scopes("b,a,b"), [Some("a".to_owned()), Some("b".to_owned())]);
    }

    #[test]
    fn keda_is_answered_only_where_an_address_says_so() {
        let read = |address: &str| {
            let args = ["x", "--sidecar-image", "s", "--keda-listen", address];
            Settings::try_parse_from(args).map(|settings| settings.keda_listen)
        };
        assert_eq!(Settings::try_parse_from(["x", "--sidecar-image", "s"]).unwrap().keda_listen, None);
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read("[::]:9090").unwrap(), Some(SocketAddr::from(([0_u16; 8], 9090))));
        assert!(read("9090").is_err());
    }
}
