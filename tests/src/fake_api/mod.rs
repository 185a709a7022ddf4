//! A Kubernetes API server in memory: what the operator's laws are proved against, without a cluster.
//!
//! It is a tower service under a [`kube::Client`], so that everything above the socket is the real thing; for another
//! process it listens on one as well ([`socket`]). It knows no schema: resources are what their paths say, list keys come
//! from one small table ([`lists`]), and nothing is defaulted or validated. What it does keep is what controllers live by:
//! resource versions and conflicts, generation, uid, server-side apply with ownership, watches with bookmarks and expiry,
//! preconditions, owner references.
//!
//! ```text
//! kube::Client ─▶ FakeApi::answer ─▶ path ─▶ faults? ─▶ serve ─▶ store ─▶ watchers
//!                                                         └─ apply / patch
//! ```

pub mod apply;
mod event_faults;
pub mod faults;
pub mod life;
pub mod lists;
pub mod managed;
pub mod path;
pub mod record;
mod refusal;
mod serve;
pub mod socket;
pub mod store;
mod watch;
mod write_faults;

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, request::Parts as Head};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::Value;

use faults::{Faults, HANG, Harm, Verdict, WriteFault};
use life::Life;
use path::Target;
use record::{Call, Permission, Write};
use store::Store;

/// The body of an answer: whole, or a watch that goes on.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// The server. A clone is the same server.
#[derive(Clone, Default)]
pub struct FakeApi {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) faults: Faults,
    pub(crate) calls: Vec<Call>,
    pub(crate) writes: Vec<Write>,
}

impl FakeApi {
    /// A server that holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A client of it; its default namespace is `default`.
    pub fn client(&self) -> Client {
        self.client_of(&Life::default())
    }

    /// A client of it for a process that may be killed.
    pub fn client_of(&self, life: &Life) -> Client {
        let (api, life) = (self.clone(), life.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (api, life) = (api.clone(), life.clone());
            Box::pin(async move { api.answer(&life, request).await })
                as BoxFuture<'static, io::Result<Answer>>
        });
        Client::new(service, "default")
    }

    /// Changes the faults that are still to come.
    pub fn faults<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        change(&mut self.inner.lock().faults)
    }

    /// Looks at, or changes behind every client's back, what is stored. Watches see the changes.
    pub fn store<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        change(&mut self.inner.lock().store)
    }

    /// Stores an object whole, its status too, as if another controller had made it; it returns what is stored.
    pub fn put(&self, object: &impl serde::Serialize, plural: &str) -> Value {
        let object = serde_json::to_value(object).unwrap_or_default();
        self.store(|store| store.put(object, plural))
    }

    /// One object, if it is there. `group` is empty for the core group.
    pub fn find(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.store(|store| store.get(&store::Key::new(group, plural, Some(namespace), name)).cloned())
    }

    /// Every request so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.inner.lock().calls.clone()
    }

    /// What a role must allow for the requests so far.
    pub fn permissions(&self) -> BTreeSet<Permission> {
        self.inner.lock().calls.iter().map(|call| call.permission.clone()).collect()
    }

    /// Every write that was carried out so far, in order; one that changed nothing is among them.
    pub fn writes(&self) -> Vec<Write> {
        self.inner.lock().writes.clone()
    }

    /// How many writes were carried out so far, but for those of Leases.
    pub fn write_count(&self) -> usize {
        self.inner.lock().writes.iter().filter(|write| write.resource != "leases").count()
    }

    /// Forgets the requests and writes so far.
    pub fn forget(&self) {
        let mut inner = self.inner.lock();
        inner.calls.clear();
        inner.writes.clear();
    }

    async fn answer<B>(&self, life: &Life, request: Request<B>) -> io::Result<Answer>
    where
        B: http_body::Body,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        life.live_on().await;
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let Some(target) = Target::parse(&head.uri) else {
            return Ok(refusal::not_found(head.uri.path()).answer());
        };
        let delay = self.faults(|faults| faults.delay(&target.plural));
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let (fault, answer) = self.handle(&target, &head, &body);
        match (fault, answer) {
            (Some(WriteFault::Last), Some(answer)) => {
                life.doom();
                Ok(answer)
            }
            (None, Some(answer)) => Ok(answer),
            (Some(WriteFault::Before(harm) | WriteFault::After(harm)), _) => fail(harm).await,
            (_, None) => Err(io::Error::other("the connection was cut")),
        }
    }

    /// Carries a request out, as far as the faults let it.
    fn handle(&self, target: &Target, head: &Head, body: &[u8]) -> (Option<WriteFault>, Option<Answer>) {
        let mut inner = self.inner.lock();
        let verb = record::verb(&head.method, target);
        let calls = record::calls(verb, target, head, body, &inner.store);
        inner.calls.extend(calls);
        if matches!(verb, "list" | "watch") && inner.faults.breaks_watch(&target.plural) {
            return (Some(WriteFault::Before(Harm::Reset)), None);
        }
        let write = record::is_write(verb).then_some(target.plural.as_str());
        match inner.faults.judge(write) {
            Verdict::Serve => (None, Some(serve::serve(&mut inner, target, head, body))),
            Verdict::Fail(WriteFault::Before(harm)) => (Some(WriteFault::Before(harm)), None),
            Verdict::Fail(fault) => (Some(fault), Some(serve::serve(&mut inner, target, head, body))),
        }
    }
}

/// What the client of a request that goes wrong gets to see.
async fn fail(harm: Harm) -> io::Result<Answer> {
    match harm {
        Harm::Code(code) => return Ok(refusal::of_code(code).answer()),
        Harm::Hang => tokio::time::sleep(HANG).await,
        Harm::Reset => {}
    }
    Err(io::Error::other("the connection was cut"))
}
