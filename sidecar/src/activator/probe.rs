//! Asks pods of which nothing was heard for long whether they are still who they were.
//!
//! Duties and answers say so all the time. Where neither comes, as when the operator is gone and nobody asks for
//! anything, an address may have become another pod's: so what is sent there first is a question with nothing of any
//! client in it. It is about what no pod has, which costs nobody anything. Whoever cannot tell that it is meant says 421.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::header::HOST;
use http::{HeaderValue, Request};
use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};

use super::Activator;
use super::forward::Order;
use crate::proxy::upstream::Upstream;

/// How often is looked who was silent for long.
const INTERVAL: Duration = Duration::from_secs(10);
/// The longest that an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// What no pod has.
const PATH: &str = "/corral/v1/here";

/// Asks, until it is dropped.
pub(super) async fn watch(activator: &Activator) {
    loop {
        sleep(INTERVAL).await;
        let quiet = activator.hold.quiet();
        join_all(quiet.iter().map(|(uid, upstream)| ask(activator, uid, upstream))).await;
    }
}

async fn ask(activator: &Activator, uid: &str, upstream: &Upstream) {
    if timeout(PATIENCE, is_there(activator, uid, upstream)).await.unwrap_or_default() {
        activator.hold.answered(uid);
    }
}

async fn is_there(activator: &Activator, uid: &str, upstream: &Upstream) -> bool {
    let Ok(request) = Request::get(PATH).header(HOST, HeaderValue::from_static("pod")).body(()) else {
        return false;
    };
    let id = activator.dice.request_id();
    let order = Order::new(&request.into_parts().0, Bytes::new(), IpAddr::V6(Ipv6Addr::LOCALHOST), &id);
    let Some(Ok((answer, lease))) = order.reach(activator, uid, upstream).await else {
        return false;
    };
    let is_meant = order.is_answered_in_its_name(&answer);
    if answer.into_body().collect().await.is_ok() {
        upstream.give_back(lease);
    }
    is_meant
}
