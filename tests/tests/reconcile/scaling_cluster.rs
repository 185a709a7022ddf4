//! What surrounds an operator that scales: clients, pods that take time to start and to answer, and the ReplicaSet's
//! controller, which takes pods away in an order of its own and knows nothing of what they do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use corral_operator::clock::Clock;
use corral_operator::config::Settings;
use corral_operator::names::DELETION_COST;
use corral_operator::run::{Parts, run};
use corral_scaler::{Phase, PodSeen, deletion_order};
use corral_tests::fake_api::record::Write;
use corral_tests::fake_api::store::Key;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::pods::Sidecar;
use super::world::{NS, World};

pub(crate) const POOL: &str = "chat";
const STEP: Duration = Duration::from_millis(250);
/// How many answers a pod writes at one time.
pub(crate) const SLOTS: usize = 4;
/// From its node to being able to serve.
const STARTUP: Duration = Duration::from_secs(20);
/// How late the ReplicaSet's controller learns that it is asked for fewer.
const LAG: Duration = Duration::from_secs(1);
/// From an order to delete a pod to its end.
const TERMINATION: Duration = Duration::from_secs(2);
/// How late the kubelet's probe sees what a pod says of itself.
const PROBE: Duration = Duration::from_secs(1);
/// The time of day at which each test begins.
const MORNING: i64 = 1_767_400_000;

/// A clock of one process, on the time of day that all share.
#[derive(Debug)]
struct Wall {
    morning: Instant,
    origin: Instant,
}

impl Clock for Wall {
    fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.origin)
    }

    fn wall(&self) -> Timestamp {
        time_of_day(self.morning)
    }
}

fn time_of_day(morning: Instant) -> Timestamp {
    let passed = SignedDuration::try_from(Instant::now() - morning).unwrap();
    Timestamp::from_second(MORNING).unwrap() + passed
}

/// A pod with what it has to do.
pub(crate) struct LivePod {
    pub(crate) name: String,
    ip: String,
    born: Instant,
    scheduled: Option<Instant>,
    started: bool,
    /// Since when it says of itself what the kubelet has not seen yet.
    turned: Option<Instant>,
    ready: bool,
    dying: Option<Instant>,
    /// What is left of each answer that it writes.
    running: Vec<Duration>,
    /// When those came that wait, and how long each takes.
    queue: VecDeque<(Instant, Duration)>,
}

pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) pods: Vec<LivePod>,
    /// How many pods find a node.
    pub(crate) room: usize,
    /// Requests a second, and how long each takes.
    pub(crate) load: (f64, Duration),
    /// Requests that found no pod.
    pub(crate) refused: u32,
    /// Requests that ended with their pod.
    pub(crate) cut: u32,
    /// The names of the pods that were taken away, in order.
    pub(crate) taken: Vec<String>,
    /// Of them, those that had something to do, or a cost that does not say that they shall go.
    pub(crate) mistaken: Vec<String>,
    /// Whether it makes and takes pods.
    pub(crate) controller: bool,
    /// Whether a change of the pods is on its way.
    pub(crate) rolling: bool,
    /// How many pods are asked for, and since when.
    noted: (u64, Instant),
    operator: JoinHandle<anyhow::Result<()>>,
    morning: Instant,
    born: u32,
    owed: f64,
    turn: usize,
}

impl Cluster {
    /// A cluster with an operator and one pool, whose first pods serve.
    pub(crate) async fn with_pool(spec: &Value) -> Self {
        let mut cluster = Self::new().await;
        cluster.world.put_pool(POOL, spec);
        cluster.pass(50).await;
        cluster
    }

    pub(crate) async fn new() -> Self {
        let world = World::new().await;
        // The world only looks on.
        world.lease.release().await;
        let morning = Instant::now();
        let operator = start(&world, morning, "first");
        Self {
            world,
            pods: Vec::new(),
            room: 1000,
            load: (0.0, Duration::ZERO),
            refused: 0,
            cut: 0,
            taken: Vec::new(),
            mistaken: Vec::new(),
            controller: true,
            rolling: false,
            noted: (0, morning),
            operator,
            morning,
            born: 0,
            owed: 0.0,
            turn: 0,
        }
    }

    /// Ends the operator as a crash does; another begins.
    pub(crate) fn replace_operator(&mut self) {
        self.operator.abort();
        self.operator = start(&self.world, self.morning, "second");
    }

    /// Lets so many seconds pass.
    pub(crate) async fn pass(&mut self, seconds: u64) {
        self.watch(seconds, |_| {}).await;
    }

    /// Lets so many seconds pass, and looks all the while.
    pub(crate) async fn watch(&mut self, seconds: u64, mut look: impl FnMut(&Self)) {
        for _ in 0..seconds * 4 {
            sleep(STEP).await;
            self.step();
            look(self);
        }
    }

    /// Lets time pass until something is so; how many seconds that took.
    pub(crate) async fn until(&mut self, most: u64, is: impl Fn(&Self) -> bool) -> u64 {
        for second in 0..most {
            if is(self) {
                return second;
            }
            self.pass(1).await;
        }
        let status = self.status();
        panic!("not within {most} s: asked {}, status {status:#}", self.asked());
    }

    /// Gives a pod so many requests of so many seconds.
    pub(crate) fn give(&mut self, name: &str, requests: u64, seconds: u64) {
        let now = Instant::now();
        let pod = self.pods.iter_mut().find(|pod| pod.name == name).unwrap();
        for _ in 0..requests {
            pod.queue.push_back((now, Duration::from_secs(seconds)));
        }
        self.world.sidecars.change(&pod.ip, |sidecar| sidecar.counters.arrivals += requests);
    }

    /// Somebody asks the first pod that serves for its models.
    pub(crate) fn list_models(&self) {
        let pod = self.pods.iter().find(|pod| pod.ready).unwrap();
        self.world.sidecars.change(&pod.ip, |sidecar| sidecar.counters.looks += 1);
    }

    /// How many pods the Deployment is asked for.
    pub(crate) fn asked(&self) -> u64 {
        self.world.deployment(POOL).map_or(0, |found| found["spec"]["replicas"].as_u64().unwrap_or(0))
    }

    pub(crate) fn status(&self) -> Value {
        self.world
            .api
            .find("corral.dev", "ollamapools", NS, POOL)
            .map_or(Value::Null, |mut pool| pool["status"].take())
    }

    pub(crate) fn desired(&self) -> u64 {
        self.status()["desiredReplicas"].as_u64().unwrap_or(0)
    }

    pub(crate) fn condition(&self, kind: &str) -> (String, String) {
        let (status, reason, _) = self.world.condition("ollamapools", POOL, kind);
        (status, reason)
    }

    /// Pods that Kubernetes calls ready.
    pub(crate) fn ready(&self) -> Vec<&str> {
        self.pods.iter().filter(|pod| pod.ready).map(|pod| pod.name.as_str()).collect()
    }

    /// Pods that obey the order to retire.
    pub(crate) fn retiring(&self) -> Vec<String> {
        let obeys = |pod: &&LivePod| pod.started && self.world.sidecars.get(&pod.ip).retiring;
        self.pods.iter().filter(obeys).map(|pod| pod.name.clone()).collect()
    }

    /// Whether no pod has anything to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.pods.iter().all(|pod| pod.queue.is_empty() && pod.running.is_empty())
    }

    /// Pods with a deletion cost.
    pub(crate) fn priced(&self) -> Vec<String> {
        let has =
            |pod: &&LivePod| !self.object(&pod.name)["metadata"]["annotations"][DELETION_COST].is_null();
        self.pods.iter().filter(has).map(|pod| pod.name.clone()).collect()
    }

    /// Writes of a resource so far.
    pub(crate) fn writes(&self, resource: &str) -> Vec<Write> {
        let all = self.world.api.writes().into_iter();
        all.filter(|write| write.resource == resource).collect()
    }

    /// The notes of all events of these reasons.
    pub(crate) fn notes(&self, reasons: &[&str]) -> Vec<String> {
        let events = self.writes("events").into_iter().filter(|write| write.verb == "create");
        let ours = events.filter(|write| reasons.iter().any(|reason| write.object["reason"] == *reason));
        ours.map(|write| write.object["note"].as_str().unwrap().to_owned()).collect()
    }

    fn step(&mut self) {
        if self.controller {
            self.run_replica_set();
        }
        self.run_kubelets();
        self.run_clients();
        self.run_pods();
        self.report();
        self.tell_deployment();
    }

    fn object(&self, name: &str) -> Value {
        self.world.api.find("", "pods", NS, name).unwrap_or_default()
    }

    fn run_replica_set(&mut self) {
        let asked = usize::try_from(self.asked()).unwrap();
        let live = self.pods.iter().filter(|pod| pod.dying.is_none()).count();
        for _ in live..asked {
            self.make_pod();
        }
        let now = Instant::now();
        if self.noted.0 != self.asked() {
            self.noted = (self.asked(), now);
        }
        if now - self.noted.1 < LAG {
            return;
        }
        let seen: Vec<PodSeen> = self.pods.iter().map(|pod| self.seen(pod)).collect();
        let order = deletion_order(&seen, now - self.morning);
        let gone: Vec<String> =
            order.iter().take(live.saturating_sub(asked)).map(|pod| pod.name.clone()).collect();
        for name in gone {
            let mut object = self.object(&name);
            object["metadata"]["deletionTimestamp"] = json!(time_of_day(self.morning));
            self.world.api.put(&object, "pods");
            let priced = self.priced().contains(&name);
            let pod = self.pods.iter_mut().find(|pod| pod.name == name).unwrap();
            pod.dying = Some(now);
            if !priced || pod.ready || !pod.queue.is_empty() || !pod.running.is_empty() {
                self.mistaken.push(name.clone());
            }
            self.taken.push(name);
        }
    }

    fn seen(&self, pod: &LivePod) -> PodSeen {
        let object = self.object(&pod.name);
        let cost =
            object["metadata"]["annotations"][DELETION_COST].as_str().map_or(0, |cost| cost.parse().unwrap());
        PodSeen {
            uid: pod.name.clone(),
            name: pod.name.clone(),
            node: pod.scheduled.map(|_| pod.name.clone()),
            phase: if pod.started { Phase::Running } else { Phase::Pending },
            ready: pod.ready,
            created: pod.born - self.morning,
            terminating: pod.dying.is_some(),
            deletion_cost: cost,
            ..PodSeen::default()
        }
    }

    fn make_pod(&mut self) {
        self.born += 1;
        let (name, ip) = (format!("{POOL}-{}", self.born), format!("10.0.0.{}", self.born));
        let object = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NS, "labels": {"corral.dev/pool": POOL}},
            "spec": {"containers": [{"name": "ollama"}]}, "status": {"phase": "Pending"}});
        self.world.api.put(&object, "pods");
        self.pods.push(LivePod {
            name,
            ip,
            born: Instant::now(),
            scheduled: None,
            started: false,
            turned: None,
            ready: false,
            dying: None,
            running: Vec::new(),
            queue: VecDeque::new(),
        });
    }

    fn run_kubelets(&mut self) {
        let now = Instant::now();
        for nth in 0..self.pods.len() {
            self.schedule(nth, now);
            if self.pods[nth].scheduled.is_some_and(|at| now - at >= STARTUP) {
                self.begin(nth);
            }
            self.probe(nth, now);
        }
        let (gone, live) = std::mem::take(&mut self.pods)
            .into_iter()
            .partition(|pod| pod.dying.is_some_and(|at| now - at >= TERMINATION));
        self.pods = live;
        let gone: Vec<LivePod> = gone;
        for pod in gone {
            self.cut += u32::try_from(pod.queue.len() + pod.running.len()).unwrap();
            self.world.api.store(|store| store.remove(&Key::new("", "pods", Some(NS), &pod.name)));
            self.world.sidecars.0.lock().remove(&pod.ip.parse().unwrap());
        }
    }

    fn schedule(&mut self, nth: usize, now: Instant) {
        let taken = self.pods.iter().filter(|pod| pod.scheduled.is_some()).count();
        let (fits, time) = (taken < self.room, time_of_day(self.morning));
        let pod = &mut self.pods[nth];
        if pod.scheduled.is_some() || pod.dying.is_some() {
            return;
        }
        let name = pod.name.clone();
        pod.scheduled = fits.then_some(now);
        let mut object = self.object(&name);
        if fits {
            object["spec"]["nodeName"] = json!(name);
            object["status"]["conditions"] =
                json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": time}]);
        } else if object["status"]["conditions"].is_null() {
            object["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False",
                "reason": "Unschedulable", "lastTransitionTime": time,
                "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}]);
        }
        self.world.api.put(&object, "pods");
    }

    fn begin(&mut self, nth: usize) {
        let pod = &mut self.pods[nth];
        if std::mem::replace(&mut pod.started, true) {
            return;
        }
        let (name, ip) = (pod.name.clone(), pod.ip.clone());
        let mut object = self.object(&name);
        object["status"]["phase"] = json!("Running");
        object["status"]["podIP"] = json!(ip);
        object["status"]["initContainerStatuses"] = json!([{"name": "limiter", "ready": true, "restartCount": 0,
            "image": "x", "imageID": "x", "state": {"running": {}}}]);
        let stored = self.world.api.put(&object, "pods");
        let mut sidecar = Sidecar::new(stored["metadata"]["uid"].as_str().unwrap());
        sidecar.keys = self.world.keys(POOL);
        sidecar.gauges.slots = u32::try_from(SLOTS).unwrap();
        self.world.sidecars.0.lock().insert(ip.parse().unwrap(), sidecar);
    }

    /// The kubelet calls a pod ready, or no longer, a little after the pod does.
    fn probe(&mut self, nth: usize, now: Instant) {
        let time = time_of_day(self.morning);
        let pod = &mut self.pods[nth];
        if !pod.started {
            return;
        }
        let says = self.world.sidecars.get(&pod.ip).is_ready() && pod.dying.is_none();
        if says == pod.ready {
            pod.turned = None;
            return;
        }
        if now - *pod.turned.get_or_insert(now) < PROBE {
            return;
        }
        (pod.ready, pod.turned) = (says, None);
        let name = pod.name.clone();
        let mut object = self.object(&name);
        let conditions = object["status"]["conditions"].as_array_mut().unwrap();
        conditions.retain(|condition| condition["type"] != "Ready");
        let status = if says { "True" } else { "False" };
        conditions.push(json!({"type": "Ready", "status": status, "lastTransitionTime": time}));
        self.world.api.put(&object, "pods");
    }

    /// New requests go around the pods that are ready.
    fn run_clients(&mut self) {
        let (rate, service) = self.load;
        self.owed += rate * STEP.as_secs_f64();
        while self.owed >= 1.0 {
            self.owed -= 1.0;
            let ready: Vec<String> = self.ready().into_iter().map(str::to_owned).collect();
            self.turn += 1;
            match ready.get(self.turn % ready.len().max(1)) {
                Some(name) => self.give(&name.clone(), 1, service.as_secs()),
                None => self.refused += 1,
            }
        }
    }

    /// Each pod writes as many answers at a time as it has slots.
    fn run_pods(&mut self) {
        for pod in self.pods.iter_mut().filter(|pod| pod.started) {
            let free = SLOTS.saturating_sub(pod.running.len()).min(pod.queue.len());
            pod.running.extend(pod.queue.drain(..free).map(|(_, service)| service));
            let busy = u64::try_from(pod.running.len()).unwrap();
            pod.running.iter_mut().for_each(|left| *left = left.saturating_sub(STEP));
            pod.running.retain(|left| !left.is_zero());
            let done = busy - u64::try_from(pod.running.len()).unwrap();
            self.world.sidecars.change(&pod.ip, |sidecar| {
                sidecar.counters.slot_millis += busy * u64::try_from(STEP.as_millis()).unwrap();
                sidecar.counters.completions += done;
            });
        }
    }

    fn report(&self) {
        let now = Instant::now();
        for pod in self.pods.iter().filter(|pod| pod.started) {
            self.world.sidecars.change(&pod.ip, |sidecar| {
                sidecar.gauges.in_flight = u32::try_from(pod.running.len()).unwrap();
                sidecar.gauges.queued = u32::try_from(pod.queue.len()).unwrap();
                let oldest = pod.queue.front().map_or(Duration::ZERO, |(came, _)| now - *came);
                sidecar.gauges.oldest_wait_ms = u64::try_from(oldest.as_millis()).unwrap();
            });
        }
    }

    fn tell_deployment(&self) {
        let Some(mut object) = self.world.deployment(POOL) else { return };
        let live = self.pods.iter().filter(|pod| pod.dying.is_none());
        let ready = live.clone().filter(|pod| pod.ready).count();
        let count = live.count();
        let conditions = object["status"].get("conditions").cloned().unwrap_or_else(|| json!([]));
        object["status"] = json!({"observedGeneration": object["metadata"]["generation"], "replicas": count,
            "updatedReplicas": if self.rolling { 0 } else { count }, "readyReplicas": ready, "availableReplicas": ready,
            "conditions": conditions});
        self.world.api.put(&object, "deployments");
    }
}

fn start(world: &World, morning: Instant, who: &str) -> JoinHandle<anyhow::Result<()>> {
    let args = ["corral-operator", "--sidecar-image", "corral/sidecar:1", "--listen", "127.0.0.1:0"];
    let parts = Parts {
        client: world.api.client(),
        clock: Arc::new(Wall { morning, origin: Instant::now() }),
        transport: Arc::new(world.sidecars.clone()),
        identity: who.to_owned(),
    };
    tokio::spawn(run(Settings::parse_from(args), parts, std::future::pending()))
}
