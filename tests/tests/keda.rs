//! Only the replica that leads answers KEDA; and what the documentation shows to KEDA's users is what the operator reads.
#![cfg(test)]

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use corral_crds::OllamaPool;
use corral_crds::valid::check_pool;
use corral_operator::clock::SystemClock;
use corral_operator::config::Settings;
use corral_operator::exchange::transport::Network;
use corral_operator::keda::externalscaler::ScaledObjectRef;
use corral_operator::keda::externalscaler::external_scaler_client::ExternalScalerClient;
use corral_operator::keda::measure::Metric;
use corral_operator::keda::metadata::Wanted;
use corral_operator::run::{Parts, run};
use corral_tests::fake_api::FakeApi;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::transport::Endpoint;
use tonic::{Code, Status};

/// A replica of the operator.
struct Replica {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    life: JoinHandle<anyhow::Result<()>>,
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Replica {
    fn start(api: &FakeApi, who: &str) -> Self {
        let address = free_port();
        let settings = Settings::parse_from([
            "corral-operator",
            "--sidecar-image=corral/sidecar:1",
            "--listen=127.0.0.1:0",
            &format!("--keda-listen={address}"),
        ]);
        let parts = Parts {
            client: api.client(),
            clock: SystemClock::shared(),
            transport: Arc::new(Network { port: free_port().port() }),
            identity: who.to_owned(),
        };
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        Self { address, stop, life: tokio::spawn(run(settings, parts, stopped)) }
    }

    /// What KEDA hears of a pool that is not there.
    async fn says(&self) -> Status {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        let mut client = ExternalScalerClient::new(endpoint.connect_lazy());
        let metadata = BTreeMap::from([("pool".to_owned(), "chat".to_owned())]);
        let ask = ScaledObjectRef { name: "chat".into(), namespace: "llm".into(), scaler_metadata: metadata };
        client.is_active(ask).await.unwrap_err()
    }

    async fn leads(&self) {
        let asked = async {
            while self.says().await.code() != Code::NotFound {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(20), asked).await.unwrap();
    }
}

#[tokio::test]
async fn only_who_leads_answers_and_another_takes_over() {
    let api = FakeApi::new();
    let first = Replica::start(&api, "first");
    first.leads().await;
    let second = Replica::start(&api, "second");
    sleep(Duration::from_millis(500)).await;
    // A client that keeps a connection to each replica passes this one by, for it has none there.
    let refused = second.says().await;
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    first.stop.send(()).unwrap();
    first.life.await.unwrap().unwrap();
    second.leads().await;
    second.life.abort();
}

fn shown() -> Vec<Value> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/keda.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    let read = |block: String| {
        let documents =
            serde_yaml::Deserializer::from_str(&block).map(|document| Value::deserialize(document).unwrap());
        documents.collect::<Vec<_>>()
    };
    blocks.flat_map(read).collect()
}

#[test]
fn the_documented_scaled_object_asks_what_the_operator_answers_of_the_documented_pool() {
    let shown = shown();
    let of = |kind: &str| shown.iter().filter(|object| object["kind"] == kind).cloned().collect::<Vec<_>>();
    let [pool] = of("OllamaPool").try_into().unwrap();
    let pool: OllamaPool = serde_json::from_value(pool).unwrap();
    let name = pool.metadata.name.clone().unwrap();
    assert_eq!(check_pool(&name, &pool.spec), []);
    let [object] = of("ScaledObject").try_into().unwrap();
    let target = json!({"apiVersion": "corral.dev/v1alpha1", "kind": "OllamaPool", "name": name});
    assert_eq!(object["spec"]["scaleTargetRef"], target);
    let [trigger] = object["spec"]["triggers"].as_array().unwrap().as_slice() else { panic!("{object}") };
    assert_eq!(trigger["type"], "external-push");
    let metadata = serde_json::from_value(trigger["metadata"].clone()).unwrap();
    let namespace = object["metadata"]["namespace"].as_str().unwrap().to_owned();
    let wanted =
        Wanted::of(&ScaledObjectRef { name: name.clone(), namespace, scaler_metadata: metadata }).unwrap();
    assert_eq!((wanted.pool.name, wanted.metric), (name, Metric::DesiredReplicas));
    assert_eq!(Some(wanted.pool.namespace), pool.metadata.namespace);
}
