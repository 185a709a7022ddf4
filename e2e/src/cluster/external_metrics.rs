//! The API `external.metrics.k8s.io`, served by the harness itself: what a `HorizontalPodAutoscaler` reads its external
//! metrics from, in place of an adapter.
//!
//! It answers on the first node's address. A Service without selector leads there, and an `APIService` sends the API server
//! to it. One of a kind: a cluster has one such API.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rcgen::CertifiedKey;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};
use serde_json::{Value, json};

use super::Cluster;
use super::http::inside;

const GROUP: &str = "external.metrics.k8s.io";
const VERSION: &str = "v1beta1";
const SERVICE: &str = "external-metrics";
/// For the API server to find it.
const LIMIT: Duration = Duration::from_secs(30);
/// A connection on which nothing comes is closed after this.
const SILENCE: Duration = Duration::from_secs(5);
/// How soon it is noticed that nobody needs it any more.
const PAUSE: Duration = Duration::from_millis(20);
const MAX_HEAD_BYTES: usize = 64 << 10;

/// The API with one metric, whatever its name. Removed when this is dropped.
#[derive(Debug)]
pub struct ExternalMetrics {
    cluster: Cluster,
    told: Arc<Told>,
    server: Option<JoinHandle<()>>,
}

/// What is told, and to how many.
#[derive(Debug, Default)]
struct Told {
    value: AtomicU64,
    asked: AtomicU64,
    over: AtomicBool,
}

impl ExternalMetrics {
    /// Serves it, with its Service in this namespace, and waits until the API server has found it.
    pub fn serve(cluster: &Cluster, namespace: &str) -> Result<Self> {
        let (node, tls) = (cluster.addresses.node(0), Arc::new(server_config(identity()?)?));
        let listener = listen(cluster, node)?;
        let port = listener.local_addr()?.port();
        let told = Arc::new(Told::default());
        let server = thread::spawn({
            let told = Arc::clone(&told);
            move || accept(&listener, &tls, &told)
        });
        let serving = Self { cluster: cluster.clone(), told, server: Some(server) };
        cluster.apply(namespace, &manifests(namespace, node, port))?;
        cluster.wait_for(LIMIT, "condition=Available", &[&format!("apiservice/{VERSION}.{GROUP}")])?;
        Ok(serving)
    }

    /// What the metric is from now on.
    pub fn set(&self, value: u64) {
        self.told.value.store(value, Ordering::Relaxed);
    }

    /// How often somebody has asked for it.
    pub fn asked(&self) -> u64 {
        self.told.asked.load(Ordering::Relaxed)
    }
}

impl Drop for ExternalMetrics {
    /// The registration goes first: an API that does not answer keeps namespaces from being deleted.
    fn drop(&mut self) {
        let name = format!("{VERSION}.{GROUP}");
        let _ = self.cluster.kubectl(["delete", "apiservice", &name, "--ignore-not-found"]).attempt();
        self.told.over.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// A certificate of its own, which nobody is asked to trust.
fn identity() -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([SERVICE.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    Ok((cert.der().clone(), key.into()))
}

fn server_config(
    (certificate, key): (CertificateDer<'static>, PrivateKeyDer<'static>),
) -> Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_no_client_auth().with_single_cert(vec![certificate], key)?)
}

fn listen(cluster: &Cluster, node: Ipv4Addr) -> Result<TcpListener> {
    let network = cluster.instance.network_namespace(0);
    let listening = inside(&network, move || {
        let listener = TcpListener::bind(SocketAddr::new(IpAddr::V4(node), 0))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })?;
    listening.join().unwrap_or_else(|_| bail!("listening panicked"))
}

fn manifests(namespace: &str, node: Ipv4Addr, port: u16) -> String {
    let labels = json!({ "kubernetes.io/service-name": SERVICE });
    let ports = json!([{ "name": "https", "port": 443, "targetPort": port }]);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": SERVICE },
        "spec": { "ports": ports },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": SERVICE, "labels": labels },
        "addressType": "IPv4",
        "ports": [{ "name": "https", "port": port }],
        "endpoints": [{ "addresses": [node], "conditions": { "ready": true } }],
    });
    let api = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": { "name": format!("{VERSION}.{GROUP}") },
        "spec": {
            "group": GROUP, "version": VERSION, "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true,
            "service": { "namespace": namespace, "name": SERVICE, "port": 443 },
        },
    });
    [service, slice, api].map(|object| object.to_string()).join("\n---\n")
}

fn accept(listener: &TcpListener, tls: &Arc<ServerConfig>, told: &Arc<Told>) {
    while !told.over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let (tls, told) = (Arc::clone(tls), Arc::clone(told));
                // What becomes of one connection is the matter of whoever made it.
                thread::spawn(move || answer_one(stream, tls, &told));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => return,
        }
    }
}

/// One request, and the end of the connection.
fn answer_one(mut stream: TcpStream, tls: Arc<ServerConfig>, told: &Told) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let mut connection = ServerConnection::new(tls)?;
    let mut secured = Stream::new(&mut connection, &mut stream);
    let path = read_path(&mut secured)?;
    let (status, body) = answer(&path, told);
    let body = body.to_string();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    secured.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes())?;
    connection.send_close_notify();
    connection.complete_io(&mut stream)?;
    Ok(())
}

/// The path of a request without a body.
fn read_path(from: &mut impl Read) -> Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        head.extend(byte);
        ensure!(head.len() <= MAX_HEAD_BYTES, "the head is longer than {MAX_HEAD_BYTES} bytes");
    }
    let head = String::from_utf8(head)?;
    let target = head.split(' ').nth(1).context("a request has a target")?;
    Ok(target.split('?').next().unwrap_or_default().to_owned())
}

/// The list of what there is, or the value of the metric that is asked for.
fn answer(path: &str, told: &Told) -> (&'static str, Value) {
    let root = format!("/apis/{GROUP}/{VERSION}");
    let Some(rest) = path.strip_prefix(&root) else { return ("404 Not Found", json!({})) };
    let parts: Vec<&str> = rest.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        [""] => ("200 OK", resources()),
        ["namespaces", _, metric] => {
            told.asked.fetch_add(1, Ordering::Relaxed);
            ("200 OK", value(metric, told.value.load(Ordering::Relaxed)))
        }
        _ => ("404 Not Found", json!({})),
    }
}

fn resources() -> Value {
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [{
            "name": "externalmetrics", "singularName": "", "namespaced": true,
            "kind": "ExternalMetricValueList", "verbs": ["get"],
        }],
    })
}

fn value(metric: &str, value: u64) -> Value {
    json!({
        "kind": "ExternalMetricValueList", "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {},
        "items": [{ "metricName": metric, "metricLabels": {}, "timestamp": null, "value": value.to_string() }],
    })
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    #[test]
    fn the_list_and_the_metric_of_any_namespace_are_told_and_nothing_else() {
        let told = Told::default();
        told.value.store(7, Ordering::Relaxed);
        let of = |path: &str| answer(path, &told);
        assert_eq!(of("/apis/external.metrics.k8s.io/v1beta1").1["resources"][0]["verbs"], json!(["get"]));
        assert_eq!(told.asked.load(Ordering::Relaxed), 0);
        let (status, list) = of("/apis/external.metrics.k8s.io/v1beta1/namespaces/a/queued_requests");
        assert_eq!((status, &list["items"][0]["value"]), ("200 OK", &json!("7")));
        assert_eq!(list["items"][0]["metricName"], "queued_requests");
        assert_eq!(told.asked.load(Ordering::Relaxed), 1);
        for path in ["/apis", "/openapi/v2", "/apis/external.metrics.k8s.io/v1beta1/nodes/a"] {
            assert_eq!(of(path).0, "404 Not Found", "{path}");
        }
    }

    /// A client that trusts this certificate and no other.
    fn client(certificate: CertificateDer<'static>) -> ClientConnection {
        let mut trusted = RootCertStore::empty();
        trusted.add(certificate).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(trusted).with_no_client_auth();
        ClientConnection::new(Arc::new(config), SERVICE.try_into().unwrap()).unwrap()
    }

    #[test]
    fn a_request_is_answered_over_tls() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let identity = identity().unwrap();
        let mut client = client(identity.0.clone());
        let tls = Arc::new(server_config(identity).unwrap());
        let answering = thread::spawn(|| answer_one(server, tls, &Told::default()));
        let mut secured = Stream::new(&mut client, &mut stream);
        secured.write_all(b"GET /apis/external.metrics.k8s.io/v1beta1 HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        secured.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("APIResourceList"), "{text}");
        answering.join().unwrap().unwrap();
    }
}
