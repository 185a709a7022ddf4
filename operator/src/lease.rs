//! Leader election: at most one operator acts at a time, whatever their clocks say.
//!
//! It never compares the clock of another with its own. A candidate takes a Lease over only after it has *watched* it
//! unchanged for the whole duration by its own monotonic clock; a holder counts its time from before it sent the renewal
//! that succeeded, and stops [`LeaseSettings::margin`] early. So as long as no clock runs faster than another by
//! margin / duration, two never lead at once — also when one was frozen and wakes up.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use crate::clock::{SharedClock, jittered};

/// How a Lease is held.
#[derive(Debug, Clone)]
pub struct LeaseSettings {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who holds it: unique for the life of the process.
    pub identity: String,
    /// How long it must lie unchanged before another takes it; 15 s.
    pub duration: Duration,
    /// How much earlier its holder stops to act; 5 s.
    pub margin: Duration,
    /// From one try or renewal to the next; 2 s, jittered.
    pub retry: Duration,
}

impl LeaseSettings {
    /// The usual times.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(15),
            margin: Duration::from_secs(5),
            retry: Duration::from_secs(2),
        }
    }
}

/// A Lease as this candidate last saw it change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sighting {
    version: Option<String>,
    at: Duration,
}

/// One candidate's side of a Lease.
#[derive(Debug)]
pub struct Lease {
    api: Api<LeaseObject>,
    settings: LeaseSettings,
    clock: SharedClock,
    seen: tokio::sync::Mutex<Option<Sighting>>,
    until: Mutex<Option<Duration>>,
}

impl Lease {
    /// A candidate that does not lead yet.
    pub fn new(client: Client, settings: LeaseSettings, clock: SharedClock) -> Self {
        let api = Api::namespaced(client, &settings.namespace);
        Self { api, settings, clock, seen: tokio::sync::Mutex::default(), until: Mutex::default() }
    }

    /// Whether this process may act now. Ask again before each act.
    pub fn is_held(&self) -> bool {
        self.until.lock().is_some_and(|until| self.clock.now() < until)
    }

    /// Tries until the Lease is held.
    pub async fn acquire(&self) {
        while !self.renew().await {
            sleep(jittered(self.settings.retry, 20)).await;
        }
    }

    /// Renews until the Lease is lost.
    pub async fn keep(&self) {
        while self.is_held() {
            sleep(jittered(self.settings.retry, 20)).await;
            self.renew().await;
        }
    }

    /// Renews, or tries to take, the Lease now; whether it is held afterwards.
    pub async fn renew(&self) -> bool {
        let mut seen = self.seen.lock().await;
        let started = self.clock.now();
        match timeout(self.settings.margin, self.attempt(&mut seen)).await {
            Ok(Ok(true)) => {
                let span = self.settings.duration.saturating_sub(self.settings.margin);
                *self.until.lock() = Some(started.saturating_add(span));
            }
            Ok(Ok(false)) => *self.until.lock() = None,
            Ok(Err(error)) => tracing::warn!(%error, "the lease could not be renewed"),
            Err(_) => tracing::warn!("the lease could not be renewed in time"),
        }
        self.is_held()
    }

    /// Gives the Lease up, so that another need not wait for it to expire.
    pub async fn release(&self) {
        let mut seen = self.seen.lock().await;
        if self.until.lock().take().is_none() {
            return;
        }
        let freed = async {
            let mut lease = self.api.get(&self.settings.name).await?;
            if self.holds(&lease) {
                lease.spec.get_or_insert_default().holder_identity = None;
                self.api.replace(&self.settings.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        if !matches!(timeout(self.settings.margin, freed).await, Ok(Ok(()))) {
            tracing::info!("the lease was not given up; it expires by itself");
        }
        *seen = None;
    }

    async fn attempt(&self, seen: &mut Option<Sighting>) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.settings.name).await? else {
            return self.written(self.api.create(&PostParams::default(), &self.claim(None)).await);
        };
        if !self.holds(&lease) && !self.is_free(&lease, seen) {
            return Ok(false);
        }
        let claim = self.claim(Some(&lease));
        self.written(self.api.replace(&self.settings.name, &PostParams::default(), &claim).await)
    }

    /// A conflict is another's success.
    fn written(&self, outcome: Result<LeaseObject, kube::Error>) -> Result<bool, kube::Error> {
        match outcome {
            Ok(lease) => Ok(self.holds(&lease)),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn holds(&self, lease: &LeaseObject) -> bool {
        holder(lease) == Some(&self.settings.identity)
    }

    /// Whether nobody holds it, or its holder has let it lie for the whole duration before these very eyes.
    fn is_free(&self, lease: &LeaseObject, seen: &mut Option<Sighting>) -> bool {
        let now = self.clock.now();
        let version = lease.metadata.resource_version.clone();
        if seen.as_ref().is_none_or(|sighting| sighting.version != version) {
            *seen = Some(Sighting { version, at: now });
        }
        let since = seen.as_ref().map_or(now, |sighting| sighting.at);
        holder(lease).is_none_or(String::is_empty) || now.saturating_sub(since) >= self.settings.duration
    }

    fn claim(&self, old: Option<&LeaseObject>) -> LeaseObject {
        let spec = old.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let changes_hands = old.is_none_or(|lease| !self.holds(lease));
        let now = MicroTime(self.clock.wall());
        let metadata = old.map_or_else(
            || ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() },
            |lease| lease.metadata.clone(),
        );
        let seconds = i32::try_from(self.settings.duration.as_secs()).unwrap_or(i32::MAX);
        let transitions = spec.lease_transitions.unwrap_or(0).saturating_add(i32::from(changes_hands));
        let acquired = if changes_hands { Some(now.clone()) } else { spec.acquire_time.clone() };
        let spec = LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: Some(seconds),
            acquire_time: acquired,
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..spec
        };
        LeaseObject { metadata, spec: Some(spec) }
    }
}

fn holder(lease: &LeaseObject) -> Option<&String> {
    lease.spec.as_ref()?.holder_identity.as_ref()
}
