//! Scripted sidecars, each at an address of its own on loopback: they verify, obey, and answer with signed reports.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use corral_wire::{
    Directive, PlanState, PoolKeys, PoolRef, Position, Relief, Report, ServePermission, Signed, ports,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

use crate::load;

/// One pod's sidecar. It was told to serve by an operator before this one, as after a restart.
pub(crate) struct Pod {
    uid: String,
    pool: PoolRef,
    keys: PoolKeys,
    seed: u64,
    born: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    obeyed: Position,
    plan: Option<PlanState>,
    divisor: u32,
    retiring: bool,
    answers: u32,
    /// Calls since they were last forgotten, the time of the last, and the longest time between two.
    calls: u32,
    last: Option<Instant>,
    gap: Option<Duration>,
    /// So many requests wait by the script, and since when somebody knows.
    burst: u32,
    shown: Option<Instant>,
}

impl Pod {
    /// A sidecar that answers at `ip`.
    pub(crate) async fn start(
        ip: IpAddr,
        uid: &str,
        pool: PoolRef,
        keys: PoolKeys,
    ) -> anyhow::Result<Arc<Self>> {
        let address = SocketAddr::from((ip, ports::ADMIN));
        let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
        let digits: String = uid.chars().filter(char::is_ascii_digit).collect();
        let pod = Arc::new(Self {
            uid: uid.to_owned(),
            pool,
            keys,
            seed: digits.parse().unwrap_or(0),
            born: Instant::now(),
            state: Mutex::new(State { divisor: 1, ..State::default() }),
        });
        let serving = Arc::clone(&pod);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(converse(Arc::clone(&serving), socket));
            }
        });
        Ok(pod)
    }

    pub(crate) fn pool(&self) -> &str {
        &self.pool.name
    }

    /// Lets so many requests wait from the next report on; 0 ends it.
    pub(crate) fn burst(&self, requests: u32) {
        let mut state = self.state.lock();
        (state.burst, state.shown) = (requests, None);
    }

    /// When the first report since [`Self::burst`] left.
    pub(crate) fn shown(&self) -> Option<Instant> {
        self.state.lock().shown
    }

    pub(crate) fn calls(&self) -> u32 {
        self.state.lock().calls
    }

    /// The longest time between two calls.
    pub(crate) fn longest_gap(&self) -> Option<Duration> {
        self.state.lock().gap
    }

    pub(crate) fn forget_calls(&self) {
        let mut state = self.state.lock();
        (state.calls, state.last, state.gap) = (0, None, None);
    }

    fn answer(&self, body: &[u8]) -> Option<Vec<u8>> {
        let signed: Signed = serde_json::from_slice(body).ok()?;
        let directive: Directive = self.keys.open(&self.uid, None, &signed).ok()?;
        let mut state = self.state.lock();
        state.note_call(Instant::now());
        if signed.position > state.obeyed {
            state.obeyed = signed.position;
            state.obey(&directive);
        }
        let report = self.report(&state);
        let answer = self.keys.sign_answer(&self.uid, state.obeyed, signed.position, &report).ok()?;
        state.shown.get_or_insert_with(Instant::now);
        serde_json::to_vec(&answer).ok()
    }

    fn report(&self, state: &State) -> Report {
        Report {
            pool: self.pool.clone(),
            plan_versions: vec![1],
            plan: state.plan.clone(),
            plan_error: None,
            divisor: state.divisor,
            serve: ServePermission::Granted,
            able_to_serve: true,
            ready: !state.retiring,
            reason: if state.retiring { "Retiring".to_owned() } else { String::new() },
            relief: Relief::Unneeded,
            retiring: state.retiring,
            draining: false,
            drain_left_ms: None,
            off_gpu: Vec::new(),
            models: vec!["llama3.2:3b-instruct-q4_K_M".to_owned(), "nomic-embed-text:latest".to_owned()],
            epoch: self.seed,
            counters: load::counters(Instant::now().saturating_duration_since(self.born), self.seed),
            gauges: load::gauges(self.seed, state.answers, state.burst),
        }
    }
}

impl State {
    fn note_call(&mut self, now: Instant) {
        (self.calls, self.answers) = (self.calls.saturating_add(1), self.answers.wrapping_add(1));
        if let Some(last) = self.last.replace(now) {
            self.gap = self.gap.max(Some(now.saturating_duration_since(last)));
        }
    }

    fn obey(&mut self, directive: &Directive) {
        if let Some(plan) = &directive.plan {
            self.plan = Some(PlanState { sequence: plan.sequence, digest: plan.digest() });
        }
        (self.divisor, self.retiring) = (directive.divisor, directive.retire);
    }
}

async fn converse(pod: Arc<Pod>, socket: TcpStream) {
    // The socket may be gone already, which is noticed below.
    let _ = socket.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let pod = Arc::clone(&pod);
        async move {
            let body = request.into_body().collect().await?.to_bytes();
            let answer = pod.answer(&body);
            let status = if answer.is_some() { StatusCode::OK } else { StatusCode::FORBIDDEN };
            let mut response = Response::new(Full::new(Bytes::from(answer.unwrap_or_default())));
            *response.status_mut() = status;
            Ok::<_, hyper::Error>(response)
        }
    });
    // The operator may end in the middle of a call.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}
