//! A pod's sidecar in process, and the leader that speaks to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use corral_sidecar::config::{PodSettings, Settings};
use corral_wire::exchange::RETIRE_LEASE;
use corral_wire::{
    Directive, Forwarded, IdentityDoc, KeyPart, LimitDoc, Mode, PLAN_VERSION, PlanDoc, PoolKeys, PoolRef,
    Position, QueueDoc, RateDoc, Report, RequestLine, Scope, ServePermission, Signed,
};
use http::{Method, StatusCode};

use crate::client::{Answer, Client};
use crate::ollama::ScriptedOllama;
use crate::scratch::Scratch;
use crate::sidecar::Running;

/// The UID of a pod.
pub const UID: &str = "0b8f7c1e-pod";
pub(crate) const KEY: &[u8] = b"KEYCANARY-0123456789abcdef0123456789abcdef";

/// How long a newcomer to which nobody speaks waits.
const ALONE: Duration = Duration::from_millis(1500);

/// The bytes of the pool's key, as they must never be seen in a log.
pub fn key_text() -> String {
    String::from_utf8_lossy(KEY).into_owned()
}

/// The pool that every pod belongs to.
pub fn pool() -> PoolRef {
    PoolRef { namespace: "llm".to_owned(), name: "chat".to_owned() }
}

/// A plan with one limit: `burst` requests a client at one instant, the next an hour later.
pub fn plan(sequence: u64, burst: u64) -> PlanDoc {
    let rate = RateDoc { count_milli: 1000, window_seconds: 3600, burst };
    let limit = LimitDoc {
        policy: "llm/fair-use".to_owned(),
        name: "burst".to_owned(),
        mode: Mode::Enforce,
        endpoints: Vec::new(),
        models: Vec::new(),
        per: vec![KeyPart::Client],
        scope: Scope::Pool,
        requests: Some(rate),
        concurrency: None,
        ..LimitDoc::default()
    };
    PlanDoc {
        version: PLAN_VERSION,
        pool: pool(),
        sequence,
        identity: IdentityDoc::default(),
        queue: QueueDoc { max_depth: 100, max_wait_ms: 30_000, ..QueueDoc::default() },
        limits: vec![limit],
        ..PlanDoc::default()
    }
}

/// A running pod; it is gone when this is dropped.
pub struct Pod {
    running: Running,
    scratch: Scratch,
    state_dir: PathBuf,
    keys: PoolKeys,
}

impl Pod {
    /// Starts one that knows nothing but its keys and what `state_dir` holds (an empty path: a fresh folder).
    pub async fn start(ollama: &ScriptedOllama, state_dir: &Path) -> anyhow::Result<Self> {
        Self::start_with(ollama, state_dir, |_| ()).await
    }

    /// The same with other settings.
    pub async fn start_with(
        ollama: &ScriptedOllama,
        state_dir: &Path,
        change: impl FnOnce(&mut Settings),
    ) -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let keys_dir = scratch.path().join("keys");
        std::fs::create_dir_all(&keys_dir)?;
        std::fs::write(keys_dir.join("1"), KEY)?;
        std::fs::create_dir_all(scratch.path().join("plan"))?;
        let fresh = state_dir.as_os_str().is_empty();
        let state_dir = if fresh { scratch.path().join("state") } else { state_dir.to_owned() };
        let settings = PodSettings {
            pool: pool(),
            pod_uid: UID.to_owned(),
            pod_name: "chat-0".to_owned(),
            plan_file: scratch.path().join("plan/plan.v1.json"),
            keys_dir,
            state_dir: state_dir.clone(),
            serve_without_directive: ALONE,
            retire_lease: RETIRE_LEASE,
        };
        let mut settings = Settings::pod(settings, ollama.address());
        settings.health.probe_interval = Duration::from_millis(50);
        change(&mut settings);
        let keys = PoolKeys::new(vec![KEY.to_vec()]).context("the pool's key")?;
        Ok(Self { running: Running::start(settings).await?, scratch, state_dir, keys })
    }

    /// Starts one with a plan in force and the permission to serve, given at (1, 1) and (1, 2).
    pub async fn serving(ollama: &ScriptedOllama, plan: PlanDoc) -> anyhow::Result<Self> {
        let pod = Self::start(ollama, Path::new("")).await?;
        pod.tell(Position { term: 1, sequence: 1 }, Some(plan), 1, ServePermission::Wait).await?;
        pod.tell(Position { term: 1, sequence: 2 }, None, 1, ServePermission::Granted).await?;
        pod.readyz(StatusCode::OK).await?;
        Ok(pod)
    }

    /// Puts a plan and D where the kubelet would mount them.
    pub fn mount(&self, plan: &PlanDoc, divisor: u32) -> anyhow::Result<()> {
        self.scratch.write("plan/divisor", &divisor.to_string())?;
        self.scratch.write("plan/plan.v1.json", &serde_json::to_string(plan)?)?;
        Ok(())
    }

    /// Where it keeps what must outlive it.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// A client of its client port.
    pub fn client(&self) -> Client {
        self.running.client()
    }

    /// Speaks for a client, as an activator of the pool does.
    pub fn vouch(&self, said: &Forwarded, line: RequestLine<'_>) -> String {
        said.sign(&self.keys, UID, line).unwrap_or_default()
    }

    /// A client of its admin port.
    pub fn admin(&self) -> Client {
        self.running.admin()
    }

    /// Waits until `/readyz` answers with this status.
    pub async fn readyz(&self, status: StatusCode) -> anyhow::Result<()> {
        self.running.readyz(status).await
    }

    /// A directive for this pod, which grants it to serve.
    pub fn sign(&self, position: Position, plan: Option<PlanDoc>, divisor: u32) -> Signed {
        self.sign_for(UID, position, plan, divisor)
    }

    /// The same for any pod.
    pub fn sign_for(&self, uid: &str, position: Position, plan: Option<PlanDoc>, divisor: u32) -> Signed {
        let directive = Directive {
            pool: pool(),
            plan,
            divisor,
            serve: ServePermission::Granted,
            relief: false,
            retire: false,
        };
        let nothing = Signed {
            pod_uid: String::new(),
            position,
            answers: None,
            body: String::new(),
            mac: String::new(),
        };
        self.keys.sign(uid, position, &directive).unwrap_or(nothing)
    }

    /// Sends any envelope to `/exchange`.
    pub async fn send(&self, signed: &Signed) -> anyhow::Result<Answer> {
        self.admin().send(Method::POST, "/exchange", serde_json::to_string(signed)?).await
    }

    /// Opens the report that answers what stood at `asked`.
    pub fn open(&self, asked: Position, answer: &Answer) -> anyhow::Result<(Position, Report)> {
        let signed: Signed = serde_json::from_slice(&answer.body)?;
        Ok((signed.position, self.keys.open(UID, Some(asked), &signed)?))
    }

    /// Says something as its leader, and reads the report.
    pub async fn tell(
        &self,
        position: Position,
        plan: Option<PlanDoc>,
        divisor: u32,
        serve: ServePermission,
    ) -> anyhow::Result<Report> {
        let directive = Directive { pool: pool(), plan, divisor, serve, relief: false, retire: false };
        self.direct(position, &directive).await
    }

    /// Says as its leader whether it may be out of its Service for its load, and nothing new beside.
    pub async fn permit(&self, position: Position, relief: bool) -> anyhow::Result<Report> {
        let serve = ServePermission::Granted;
        self.direct(
            position,
            &Directive { pool: pool(), plan: None, divisor: 1, serve, relief, retire: false },
        )
        .await
    }

    /// Orders it as its leader to retire, or lets it go, and says nothing new beside.
    pub async fn order_to_retire(&self, position: Position, retire: bool) -> anyhow::Result<Report> {
        let (serve, relief) = (ServePermission::Granted, false);
        self.direct(position, &Directive { pool: pool(), plan: None, divisor: 1, serve, relief, retire })
            .await
    }

    async fn direct(&self, position: Position, directive: &Directive) -> anyhow::Result<Report> {
        let answer = self.send(&self.keys.sign(UID, position, directive)?).await?;
        ensure!(answer.status == StatusCode::OK, "{}: {}", answer.status, answer.text());
        Ok(self.open(position, &answer)?.1)
    }

    /// Asks it to end and waits until it has; its folders stay until what is returned is dropped.
    pub async fn stop(self) -> anyhow::Result<Scratch> {
        self.running.stop().await?;
        Ok(self.scratch)
    }
}
