//! Watches: the backlog from a resource version, then what happens, then the end that the client asked for.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use http::Response;
use http_body::Frame;
use http_body_util::{StreamBody, combinators::UnsyncBoxBody};
use serde_json::{Value, json};

use super::event_faults::{self, Told};
use super::path::Target;
use super::store::{Change, Store, set_meta, text};
use super::{Answer, Inner, refusal};

/// One that watches.
pub(crate) struct Watcher {
    target: Target,
    sender: UnboundedSender<Told>,
}

impl Watcher {
    /// Tells of a change; false when nobody listens any more.
    pub(crate) fn tell(&self, change: &Change) -> bool {
        let told =
            event(&self.target, change).map(|event| Told { event, older: older(&self.target, change) });
        told.is_none_or(|told| self.sender.unbounded_send(told).is_ok()) && !self.sender.is_closed()
    }

    fn bookmark(&self, revision: u64, initial_end: bool) -> bool {
        self.send(bookmark(&self.target, revision, initial_end))
    }

    fn send(&self, event: Value) -> bool {
        self.sender.unbounded_send(Told { event, older: None }).is_ok()
    }
}

impl Store {
    /// Sends every watcher that asked for bookmarks the revision it has seen.
    pub fn bookmark(&mut self) {
        let revision = self.revision;
        self.watchers.retain(|watcher| {
            !watcher.target.asks("allowWatchBookmarks") || watcher.bookmark(revision, false)
        });
    }

    /// Ends every watch that is open, as a server that restarts does.
    pub fn close_watches(&mut self) {
        self.watchers.clear();
    }
}

/// Opens a watch.
pub(crate) fn open(inner: &mut Inner, target: &Target) -> Answer {
    let from = target.parameter("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
    let (sender, receiver) = unbounded();
    let watcher = Watcher { target: target.clone(), sender };
    let store = &mut inner.store;
    if from > 0 && from < store.oldest {
        watcher.send(json!({"type": "ERROR", "object": refusal::gone().status()}));
        return stream(target, receiver, inner);
    }
    if from == 0 || target.asks("sendInitialEvents") {
        for object in selected(store, target) {
            watcher.send(json!({"type": "ADDED", "object": object}));
        }
    } else {
        for change in store.history.iter().filter(|change| change.revision > from) {
            watcher.tell(change);
        }
    }
    if target.asks("sendInitialEvents") {
        watcher.bookmark(store.revision, true);
    }
    store.watchers.push(watcher);
    stream(target, receiver, inner)
}

fn stream(target: &Target, events: UnboundedReceiver<Told>, inner: &mut Inner) -> Answer {
    let seconds = target.parameter("timeoutSeconds").and_then(|text| text.parse().ok()).unwrap_or(290);
    let end = tokio::time::sleep(Duration::from_secs(seconds));
    let lines = event_faults::arriving(events, inner.faults.event_faults()).map(|event| format!("{event}\n"));
    let frames = lines.map(|line| Ok::<_, io::Error>(Frame::data(Bytes::from(line))));
    Response::new(UnsyncBoxBody::new(StreamBody::new(frames.take_until(end))))
}

/// What a list or a watch of `target` begins with.
pub(crate) fn selected(store: &Store, target: &Target) -> Vec<Value> {
    let all = store.all().filter(|(key, object)| key.within(target) && selects(target, object));
    all.map(|(_, object)| object.clone()).collect()
}

fn event(target: &Target, change: &Change) -> Option<Value> {
    if !change.key.within(target) {
        return None;
    }
    let seen = |object: &&Value| selects(target, object);
    let (before, after) = (change.before.as_ref().filter(seen), change.after.as_ref().filter(seen));
    let (kind, object) = match (before, after) {
        (None, Some(after)) => ("ADDED", after.clone()),
        (Some(_), Some(after)) => ("MODIFIED", after.clone()),
        (Some(before), None) => ("DELETED", change.after.clone().unwrap_or_else(|| before.clone())),
        (None, None) => return None,
    };
    Some(json!({"type": kind, "object": object}))
}

/// The object as it was, as an event of that time.
fn older(target: &Target, change: &Change) -> Option<Value> {
    let mut before = change.before.clone().filter(|before| selects(target, before))?;
    if change.after.is_none() {
        // What a deletion leaves in `before` carries the revision of the end.
        set_meta(&mut before, "resourceVersion", json!(change.revision.saturating_sub(1).to_string()));
    }
    Some(json!({"type": "MODIFIED", "object": before}))
}

fn bookmark(target: &Target, revision: u64, initial_end: bool) -> Value {
    let group = if target.group.is_empty() { String::new() } else { format!("{}/", target.group) };
    let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    if initial_end && let Some(map) = metadata.as_object_mut() {
        map.insert("annotations".into(), json!({"k8s.io/initial-events-end": "true"}));
    }
    let version = format!("{group}{}", target.version);
    let object = json!({"apiVersion": version, "kind": target.plural, "metadata": metadata});
    json!({"type": "BOOKMARK", "object": object})
}

/// Whether an object is selected by the label and field selectors of a request.
fn selects(target: &Target, object: &Value) -> bool {
    let labels = target.parameter("labelSelector").unwrap_or_default();
    let fields = target.parameter("fieldSelector").unwrap_or_default();
    let terms = |text: &'_ str| text.split(',').filter(|term| !term.is_empty()).map(str::to_owned).collect();
    let (labels, fields): (Vec<String>, Vec<String>) = (terms(labels), terms(fields));
    labels.iter().all(|term| has_label(object, term)) && fields.iter().all(|term| has_field(object, term))
}

fn has_label(object: &Value, term: &str) -> bool {
    let label = |name: &str| object.pointer("/metadata/labels").and_then(|labels| labels.get(name));
    if let Some((name, value)) = term.split_once("!=") {
        return label(name).and_then(Value::as_str) != Some(value);
    }
    match term.split_once('=') {
        Some((name, value)) => label(name).and_then(Value::as_str) == Some(value.trim_start_matches('=')),
        None => label(term).is_some(),
    }
}

fn has_field(object: &Value, term: &str) -> bool {
    let (path, value) = term.split_once('=').unwrap_or((term, ""));
    text(object, &format!("/{}", path.replace('.', "/"))) == value.trim_start_matches('=')
}
