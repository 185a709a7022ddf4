//! KEDA's interface over loopback, asked by a client that is generated from the same definition.
#![cfg(test)]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use corral_operator::keda::externalscaler::external_scaler_client::ExternalScalerClient;
use corral_operator::keda::externalscaler::{GetMetricsRequest, IsActiveResponse, ScaledObjectRef};
use corral_operator::keda::scaler::STREAMS;
use corral_operator::keda::server::{CONNECTIONS, CONNECTIONS_OF_ONE, DEADLINE, MAX_CALL_BYTES, serve};
use corral_operator::keda::source::{Desired, NoNumbers, Numbers, PoolNumbers};
use corral_wire::PoolRef;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

type Client = ExternalScalerClient<Channel>;
/// What a trigger says under `metadata`.
type Pairs<'a> = &'a [(&'a str, &'a str)];

/// Pools by name, of namespace `llm`; none while it does not lead.
#[derive(Default)]
struct Script(Mutex<Option<HashMap<String, Numbers>>>);

impl PoolNumbers for Script {
    fn of(&self, pool: &PoolRef) -> Result<Numbers, NoNumbers> {
        let pools = self.0.lock();
        let pools = pools.as_ref().ok_or(NoNumbers::NotLeading)?;
        let found = pools.get(&pool.name).filter(|_| pool.namespace == "llm");
        found.copied().ok_or_else(|| NoNumbers::Unknown(pool.clone()))
    }
}

struct World {
    script: Arc<Script>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn busy() -> Numbers {
    Numbers {
        desired: Desired::Pods(3),
        queued: 6,
        in_flight: 4,
        held: 1,
        slots_per_pod: 2,
        ready: 2,
        silent: 0,
        recent: true,
    }
}

fn idle() -> Numbers {
    Numbers { desired: Desired::Pods(1), slots_per_pod: 2, ready: 1, ..Numbers::default() }
}

impl World {
    async fn new() -> Self {
        let script = Arc::new(Script::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::clone(&script) as Arc<dyn PoolNumbers>));
        let world = Self { script, address, server };
        world.set("chat", busy());
        world
    }

    fn set(&self, pool: &str, numbers: Numbers) {
        self.script.0.lock().get_or_insert_default().insert(pool.to_owned(), numbers);
    }

    fn stop_leading(&self) {
        *self.script.0.lock() = None;
    }

    async fn client(&self) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        ExternalScalerClient::new(endpoint.connect().await.unwrap())
    }
}

/// A trigger of a `ScaledObject` in namespace `llm`.
fn asks(pairs: Pairs<'_>) -> ScaledObjectRef {
    let mut metadata = BTreeMap::from([("scalerAddress".to_owned(), "corral-keda:9090".to_owned())]);
    metadata.extend(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    ScaledObjectRef { name: "chat".into(), namespace: "llm".into(), scaler_metadata: metadata }
}

fn metrics(metric: &str, pairs: Pairs<'_>) -> GetMetricsRequest {
    GetMetricsRequest { scaled_object_ref: Some(asks(pairs)), metric_name: metric.to_owned() }
}

/// What the HPA is to measure, by both numbers.
async fn target(client: &mut Client, pairs: Pairs<'_>) -> (String, i64, f64) {
    let answer = client.get_metric_spec(asks(pairs)).await.unwrap().into_inner();
    let [spec] = answer.metric_specs.try_into().unwrap();
    (spec.metric_name, spec.target_size, spec.target_size_float)
}

async fn value(client: &mut Client, metric: &str) -> Result<(String, i64, f64), Status> {
    let request = metrics(metric, &[("pool", "chat"), ("metric", metric)]);
    let answer = client.get_metrics(request).await?.into_inner();
    let [value] = answer.metric_values.try_into().unwrap();
    Ok((value.metric_name, value.metric_value, value.metric_value_float))
}

/// The next word of a stream, within the 200 ms that KEDA is promised, and some more for a machine that is busy.
async fn next(stream: &mut Streaming<IsActiveResponse>) -> Result<Option<bool>, Status> {
    let news = timeout(Duration::from_secs(2), stream.message()).await.expect("nothing is pushed");
    news.map(|news| news.map(|news| news.result))
}

fn said(outcome: Result<impl std::fmt::Debug, Status>) -> (Code, String) {
    let status = outcome.unwrap_err();
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn the_hpa_is_told_what_to_measure_and_how_much_a_replica_is_worth() {
    let world = World::new().await;
    let mut client = world.client().await;
    let usual = target(&mut client, &[("pool", "chat")]).await;
    assert_eq!(usual, ("desiredReplicas".to_owned(), 1, 1.0));
    let queued = target(&mut client, &[("pool", "chat"), ("metric", "queuedRequests")]).await;
    assert_eq!(queued, ("queuedRequests".to_owned(), 2, 2.0));
    let slots = target(&mut client, &[("pool", "chat"), ("metric", "busySlots")]).await;
    assert_eq!(slots, ("busySlots".to_owned(), 2, 1.5));
    let own = [("pool", "chat"), ("metric", "busySlots"), ("target", "0.25")];
    assert_eq!(target(&mut client, &own).await, ("busySlots".to_owned(), 1, 0.25));
}

#[tokio::test]
async fn each_metric_has_the_value_of_now() {
    let world = World::new().await;
    let mut client = world.client().await;
    for (metric, expected) in [("desiredReplicas", 3_i32), ("queuedRequests", 7), ("busySlots", 11)] {
        let value = value(&mut client, metric).await.unwrap();
        assert_eq!(value, (metric.to_owned(), i64::from(expected), f64::from(expected)));
    }
    world.set("chat", idle());
    assert_eq!(value(&mut client, "busySlots").await.unwrap().1, 0);
    let lower = metrics("desiredreplicas", &[("pool", "chat")]);
    let answer = client.get_metrics(lower).await.unwrap().into_inner();
    assert_eq!(answer.metric_values[0].metric_name, "desiredreplicas", "it is asked for by its own name");
}

#[tokio::test]
async fn a_pool_is_active_while_it_is_in_use() {
    let world = World::new().await;
    let mut client = world.client().await;
    let mut active = async || client.is_active(asks(&[("pool", "chat")])).await.unwrap().into_inner().result;
    assert!(active().await);
    world.set("chat", idle());
    assert!(!active().await);
    world.set("chat", Numbers { held: 1, ready: 0, ..idle() });
    assert!(active().await);
}

#[tokio::test]
async fn a_stream_says_at_once_how_it_is_and_then_each_change() {
    let world = World::new().await;
    world.set("chat", idle());
    let mut client = world.client().await;
    let mut stream = client.stream_is_active(asks(&[("pool", "chat")])).await.unwrap().into_inner();
    assert_eq!(next(&mut stream).await.unwrap(), Some(false));
    let mut slowest = Duration::ZERO;
    for active in [true, false, true, false, true] {
        world.set("chat", if active { busy() } else { idle() });
        let began = Instant::now();
        assert_eq!(next(&mut stream).await.unwrap(), Some(active));
        slowest = slowest.max(Instant::now() - began);
    }
    assert!(slowest <= Duration::from_millis(400), "200 ms and a busy machine: {slowest:?}");
    world.set("chat", Numbers { queued: 9, ..busy() });
    let silent = timeout(Duration::from_millis(350), stream.message()).await;
    assert!(silent.is_err(), "what does not change is not told again: {silent:?}");
}

#[tokio::test]
async fn a_stream_ends_with_why_when_its_pool_goes_or_the_lead_is_lost() {
    let world = World::new().await;
    world.set("other", busy());
    let mut client = world.client().await;
    let mut of_chat = client.stream_is_active(asks(&[("pool", "chat")])).await.unwrap().into_inner();
    let mut of_other = client.stream_is_active(asks(&[("pool", "other")])).await.unwrap().into_inner();
    assert_eq!(
        (next(&mut of_chat).await.unwrap(), next(&mut of_other).await.unwrap()),
        (Some(true), Some(true))
    );
    world.script.0.lock().as_mut().unwrap().remove("chat");
    assert_eq!(said(next(&mut of_chat).await).0, Code::NotFound);
    world.stop_leading();
    assert_eq!(said(next(&mut of_other).await).0, Code::Unavailable);
}

#[tokio::test]
async fn targets_are_not_pushed_and_keda_hears_it_as_not_implemented() {
    let world = World::new().await;
    let outcome = world.client().await.stream_metric_spec(asks(&[("pool", "chat")])).await;
    assert_eq!(said(outcome).0, Code::Unimplemented);
}

#[tokio::test]
async fn who_does_not_lead_answers_nothing_but_that() {
    let world = World::new().await;
    world.stop_leading();
    let mut client = world.client().await;
    let chat = || asks(&[("pool", "chat")]);
    let answers = [
        said(client.is_active(chat()).await),
        said(client.stream_is_active(chat()).await),
        said(client.get_metric_spec(chat()).await),
        said(value(&mut client, "queuedRequests").await),
    ];
    for (code, message) in answers {
        assert_eq!(code, Code::Unavailable);
        assert!(message.contains("does not lead"), "{message}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_trigger_is_named_by_its_key_in_every_call() {
    let world = World::new().await;
    let mut client = world.client().await;
    let wrong: [(Pairs<'_>, Code, &str); 6] = [
        (&[], Code::InvalidArgument, "metadata.pool"),
        (&[("pool", "chat"), ("metric", "cpu")], Code::InvalidArgument, "metadata.metric"),
        (
            &[("pool", "chat"), ("metric", "busySlots"), ("target", "0")],
            Code::InvalidArgument,
            "metadata.target",
        ),
        (&[("pool", "chat"), ("treshold", "5")], Code::InvalidArgument, "metadata.treshold"),
        (&[("pool", "chatt")], Code::NotFound, "metadata.pool"),
        (&[("pool", "chat"), ("namespace", "other")], Code::NotFound, "namespace other"),
    ];
    for (pairs, code, word) in wrong {
        let answers = [
            said(client.is_active(asks(pairs)).await),
            said(client.stream_is_active(asks(pairs)).await),
            said(client.get_metric_spec(asks(pairs)).await),
        ];
        for (is, message) in answers {
            assert_eq!(is, code, "{message}");
            assert!(message.contains(word), "{word}: {message}");
        }
    }
    let nobodys = metrics("queuedRequests", &[("pool", "chat")]);
    let (code, message) = said(client.get_metrics(nobodys).await);
    assert_eq!((code, message.contains("desiredReplicas")), (Code::InvalidArgument, true), "{message}");
    let nothing = GetMetricsRequest { scaled_object_ref: None, metric_name: "desiredReplicas".into() };
    assert_eq!(said(client.get_metrics(nothing).await).0, Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_not_known_is_an_error_and_never_a_zero() {
    let world = World::new().await;
    let mut client = world.client().await;
    world.set("chat", Numbers { silent: 1, ..busy() });
    let (code, message) = said(value(&mut client, "queuedRequests").await);
    assert_eq!((code, message.contains("1 of 2 ready pods")), (Code::Unavailable, true), "{message}");
    world.set("chat", Numbers { desired: Desired::Unknown, ..busy() });
    assert_eq!(said(value(&mut client, "desiredReplicas").await).0, Code::Unavailable);
    world.set("chat", Numbers { desired: Desired::Disabled, ..busy() });
    let (code, message) = said(value(&mut client, "desiredReplicas").await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("spec.autoscaling.mode"), "{message}");
}

#[tokio::test]
async fn a_call_larger_than_its_bound_is_not_read() {
    let world = World::new().await;
    let mut client = world.client().await;
    let long = "x".repeat(MAX_CALL_BYTES);
    let (code, _) = said(client.is_active(asks(&[("pool", "chat"), ("caCert", &long)])).await);
    assert_eq!(code, Code::OutOfRange);
    assert!(client.is_active(asks(&[("pool", "chat")])).await.is_ok(), "the connection goes on");
}

#[tokio::test]
async fn streams_are_bounded_and_leave_room_for_other_calls() {
    let world = World::new().await;
    let mut client = world.client().await;
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        open.push(client.stream_is_active(asks(&[("pool", "chat")])).await.unwrap().into_inner());
    }
    assert_eq!(said(client.stream_is_active(asks(&[("pool", "chat")])).await).0, Code::ResourceExhausted);
    assert!(client.is_active(asks(&[("pool", "chat")])).await.is_ok());
    open.pop();
    let again = async || client.stream_is_active(asks(&[("pool", "chat")])).await;
    let freed = timeout(Duration::from_secs(5), async move {
        let mut again = again;
        while again().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(freed.await.is_ok(), "a stream that ended makes room");
}

/// A connection of another machine's.
async fn connect_from(world: &World, number: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("127.0.0.{number}:0").parse().unwrap()).unwrap();
    socket.connect(world.address).await.unwrap()
}

/// Whether the server hangs up without a word, and after how long.
async fn hung_up(mut stream: TcpStream) -> Duration {
    let begun = Instant::now();
    let mut said = Vec::new();
    let _ = timeout(Duration::from_mins(10), stream.read_to_end(&mut said)).await.unwrap();
    begun.elapsed()
}

#[tokio::test]
async fn one_machine_does_not_take_all_connections() {
    let world = World::new().await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_OF_ONE {
        let mut stream = connect_from(&world, 2).await;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        stream.read_u8().await.unwrap();
        open.push(stream);
    }
    for _ in 0..CONNECTIONS {
        assert!(hung_up(connect_from(&world, 2).await).await < Duration::from_secs(5));
    }
    assert!(world.client().await.is_active(asks(&[("pool", "chat")])).await.is_ok());
}

#[tokio::test]
async fn a_call_that_never_ends_is_answered_in_time() {
    let world = World::new().await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut calls, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    // A message is announced, and never comes.
    let first = futures::stream::once(async {
        Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(hyper::body::Bytes::from_static(&[
            0, 0, 0, 1, 0,
        ])))
    });
    let body = http_body_util::StreamBody::new(futures::StreamExt::chain(
        Box::pin(first),
        futures::stream::pending(),
    ));
    let request =
        hyper::Request::post(format!("http://{}/externalscaler.ExternalScaler/IsActive", world.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap();
    let answer =
        timeout(DEADLINE + Duration::from_secs(5), calls.send_request(request)).await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], (Code::DeadlineExceeded as i32).to_string());
    connection.abort();
}

#[tokio::test]
async fn connections_are_bounded_and_one_that_ends_makes_room() {
    let world = World::new().await;
    let mut silent = Vec::new();
    for number in 0..CONNECTIONS {
        let mut stream = connect_from(&world, number / CONNECTIONS_OF_ONE + 2).await;
        // The server's own first frame: it has taken the connection.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        stream.read_u8().await.unwrap();
        silent.push(stream);
    }
    let mut one_more = tokio::spawn({
        let endpoint = Endpoint::from_shared(format!("http://{}", world.address)).unwrap();
        async move {
            let mut client = ExternalScalerClient::new(endpoint.connect().await.unwrap());
            client.is_active(asks(&[("pool", "chat")])).await.unwrap().into_inner().result
        }
    });
    assert!(timeout(Duration::from_millis(200), &mut one_more).await.is_err(), "it waits");
    silent.pop();
    assert!(timeout(Duration::from_secs(5), one_more).await.unwrap().unwrap());
}

#[tokio::test]
async fn what_is_no_grpc_is_answered_and_what_is_no_http2_is_hung_up_on() {
    let world = World::new().await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let ended = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok() && !answer.starts_with(b"HTTP/1.1 2"), "{answer:?}");
    assert!(world.client().await.is_active(asks(&[("pool", "chat")])).await.is_ok());
}
