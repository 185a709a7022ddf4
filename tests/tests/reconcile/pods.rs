//! Scripted sidecars: they obey directives as the real one does, and go silent, lag or refuse on demand.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use corral_operator::exchange::transport::{CallError, Link, Transport};
use corral_wire::{
    Counters, Directive, Duty, Gauges, Holding, OffGpu, PlanDoc, PlanState, PoolKeys, Position, Relief,
    Report, ServePermission, Signed,
};
use futures::future::BoxFuture;
use hyper::body::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

/// One scripted sidecar.
#[derive(Debug, Clone)]
pub(crate) struct Sidecar {
    pub(crate) uid: String,
    pub(crate) keys: Option<PoolKeys>,
    pub(crate) obeyed: Position,
    pub(crate) plan: Option<PlanDoc>,
    pub(crate) divisor: u32,
    pub(crate) serve: ServePermission,
    pub(crate) able: bool,
    pub(crate) silent: bool,
    pub(crate) reason: String,
    pub(crate) refuses: Option<String>,
    pub(crate) versions: Vec<u32>,
    pub(crate) drain_left_ms: Option<u64>,
    pub(crate) gauges: Gauges,
    pub(crate) off_gpu: Vec<OffGpu>,
    pub(crate) calls: u32,
    pub(crate) relief: Relief,
    pub(crate) retiring: bool,
    pub(crate) counters: Counters,
    pub(crate) models: Vec<String>,
}

impl Sidecar {
    pub(crate) fn new(uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            keys: None,
            obeyed: Position::default(),
            plan: None,
            divisor: 1,
            serve: ServePermission::Wait,
            able: true,
            silent: false,
            reason: String::new(),
            refuses: None,
            versions: vec![1],
            drain_left_ms: None,
            gauges: Gauges::default(),
            off_gpu: Vec::new(),
            calls: 0,
            relief: Relief::Unneeded,
            retiring: false,
            counters: Counters::default(),
            models: Vec::new(),
        }
    }

    pub(crate) fn serves(&self) -> bool {
        self.serve == ServePermission::Granted
    }

    /// Its own word for whether it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.able && self.serves() && self.word().is_empty()
    }

    fn answer(&mut self, body: &[u8]) -> Option<Bytes> {
        self.calls += 1;
        let keys = self.keys.clone()?;
        let signed: Signed = serde_json::from_slice(body).ok()?;
        let directive: Directive = keys.open(&self.uid, None, &signed).ok()?;
        if signed.position > self.obeyed {
            self.obeyed = signed.position;
            self.obey(&directive);
        }
        let answer =
            keys.sign_answer(&self.uid, self.obeyed, signed.position, &self.report(&directive)).ok()?;
        serde_json::to_vec(&answer).ok().map(Bytes::from)
    }

    fn obey(&mut self, directive: &Directive) {
        let newer = |plan: &&PlanDoc| self.plan.as_ref().is_none_or(|held| held.sequence < plan.sequence);
        if let Some(plan) = directive.plan.as_ref().filter(newer)
            && self.refuses.is_none()
        {
            self.plan = Some(plan.clone());
        }
        self.divisor = directive.divisor;
        self.retiring = directive.retire;
        self.relief = match (self.relief, directive.relief) {
            (Relief::Unneeded, _) => Relief::Unneeded,
            (_, true) => Relief::Taken,
            (_, false) => Relief::Wanted,
        };
        if directive.serve == ServePermission::Granted {
            self.serve = ServePermission::Granted;
        }
    }

    /// Its own word for why it is not ready; empty when it is.
    fn word(&self) -> String {
        let out = self.reason.is_empty() && self.relief == Relief::Taken;
        match () {
            () if out => "Overloaded".to_owned(),
            () if self.retiring && self.reason.is_empty() => "Retiring".to_owned(),
            () => self.reason.clone(),
        }
    }

    fn report(&self, directive: &Directive) -> Report {
        let plan =
            self.plan.as_ref().map(|plan| PlanState { sequence: plan.sequence, digest: plan.digest() });
        Report {
            pool: directive.pool.clone(),
            plan_versions: self.versions.clone(),
            plan,
            plan_error: self.refuses.clone(),
            divisor: self.divisor,
            serve: self.serve,
            able_to_serve: self.able,
            ready: self.is_ready(),
            reason: self.word(),
            relief: self.relief,
            retiring: self.retiring,
            draining: self.drain_left_ms.is_some(),
            drain_left_ms: self.drain_left_ms,
            off_gpu: self.off_gpu.clone(),
            models: self.models.clone(),
            epoch: 1,
            counters: self.counters,
            gauges: self.gauges,
        }
    }
}

/// All of them, by address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sidecars(
    pub(crate) Arc<Mutex<HashMap<IpAddr, Sidecar>>>,
    pub(crate) Arc<Mutex<HashMap<IpAddr, Activator>>>,
);

/// One scripted activator.
#[derive(Debug, Clone)]
pub(crate) struct Activator {
    pub(crate) uid: String,
    pub(crate) keys: Option<PoolKeys>,
    pub(crate) obeyed: Position,
    /// What it was told last.
    pub(crate) duty: Option<Duty>,
    pub(crate) held: u32,
    pub(crate) arrivals: u64,
}

impl Activator {
    fn obey(&mut self, body: &[u8]) -> Option<(Position, Duty)> {
        let signed: Signed = serde_json::from_slice(body).ok()?;
        let duty: Duty = self.keys.clone()?.open(&self.uid, None, &signed).ok()?;
        if signed.position > self.obeyed {
            self.obeyed = signed.position;
            self.duty = Some(duty.clone());
        }
        Some((signed.position, duty))
    }

    fn answer(&self, asked: Position, duty: &Duty) -> Option<Bytes> {
        let holding = Holding {
            pool: duty.pool.clone(),
            epoch: 1,
            arrivals: self.arrivals,
            refused: 0,
            requests: self.held,
            bytes: 0,
            oldest_wait_ms: 0,
            forwarding: 0,
            ready_pods: 0,
        };
        let signed = self.keys.as_ref()?.sign_answer(&self.uid, self.obeyed, asked, &holding).ok()?;
        serde_json::to_vec(&signed).ok().map(Bytes::from)
    }
}

/// The way to an activator, which keeps its answer back as it may.
struct Door {
    all: Sidecars,
    ip: IpAddr,
}

impl Door {
    fn with<T>(&self, look: impl FnOnce(&mut Activator) -> Option<T>) -> Option<T> {
        self.all.1.lock().get_mut(&self.ip).and_then(look)
    }
}

impl Link for Door {
    fn call(&mut self, body: Bytes) -> BoxFuture<'_, Result<Bytes, CallError>> {
        Box::pin(async move {
            let Some((asked, duty)) = self.with(|activator| activator.obey(&body)) else {
                return Ok(Bytes::from_static(b"no"));
            };
            let until = Instant::now() + Duration::from_millis(duty.patience_ms);
            while Instant::now() < until
                && self.with(|activator| (activator.held <= duty.wake_above).then_some(())).is_some()
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let answer = self.with(|activator| activator.answer(asked, &duty));
            Ok(answer.unwrap_or_else(|| Bytes::from_static(b"no")))
        })
    }
}

impl Sidecars {
    pub(crate) fn change<T>(&self, ip: &str, change: impl FnOnce(&mut Sidecar) -> T) -> T {
        change(self.0.lock().get_mut(&ip.parse::<IpAddr>().unwrap()).unwrap())
    }

    pub(crate) fn get(&self, ip: &str) -> Sidecar {
        self.change(ip, |sidecar| sidecar.clone())
    }

    /// Σ of the shares of the pods that serve, in thousandths: above 1000 the pool's limits are exceeded.
    pub(crate) fn shares(&self) -> u32 {
        let all = self.0.lock();
        all.values().filter(|sidecar| sidecar.serves()).map(|sidecar| 1000 / sidecar.divisor.max(1)).sum()
    }
}

struct Wire {
    all: Sidecars,
    ip: IpAddr,
}

impl Link for Wire {
    fn call(&mut self, body: Bytes) -> BoxFuture<'_, Result<Bytes, CallError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let answer =
                self.all.0.lock().get_mut(&self.ip).filter(|pod| !pod.silent).map(|pod| pod.answer(&body));
            match answer {
                Some(Some(answer)) => Ok(answer),
                Some(None) => Ok(Bytes::from_static(b"no")),
                None => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Err(CallError::Timeout(Duration::from_secs(1)))
                }
            }
        })
    }
}

impl Transport for Sidecars {
    fn link(&self, ip: IpAddr) -> Box<dyn Link> {
        Box::new(Wire { all: self.clone(), ip })
    }

    fn door(&self, ip: IpAddr) -> Box<dyn Link> {
        Box::new(Door { all: self.clone(), ip })
    }
}
