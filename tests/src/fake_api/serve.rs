//! What each request does to the store.

use http::{Method, request::Parts};
use serde_json::{Map, Value, json};

use super::apply::{self, Manager, Owners};
use super::managed;
use super::path::Target;
use super::record::{self, Write};
use super::refusal::{self, Refusal};
use super::store::{Key, Store, Stored, set_meta, text};
use super::{Answer, Inner, watch};

/// Carries a request out.
pub(crate) fn serve(inner: &mut Inner, target: &Target, head: &Parts, body: &[u8]) -> Answer {
    if head.method == Method::GET && target.asks("watch") && target.name.is_none() {
        return watch::open(inner, target);
    }
    let verb = record::verb(&head.method, target);
    let before = inner.store.revision();
    let outcome = carry_out(&mut inner.store, target, head, body);
    if let Ok((_, object)) = &outcome
        && record::is_write(verb)
    {
        inner.writes.push(Write {
            verb: verb.to_owned(),
            resource: record::resource(target),
            name: text(object, "/metadata/name").to_owned(),
            changed: inner.store.revision() != before,
            object: object.clone(),
        });
    }
    match outcome {
        Ok((code, object)) => refusal::whole(code, &object),
        Err(refusal) => refusal.answer(),
    }
}

pub(crate) fn is_apply(head: &Parts) -> bool {
    head.method == Method::PATCH && content_type(head).starts_with("application/apply-patch")
}

fn content_type(head: &Parts) -> &str {
    head.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn carry_out(store: &mut Store, target: &Target, head: &Parts, body: &[u8]) -> Result<(u16, Value), Refusal> {
    match (&head.method, &target.name) {
        (&Method::GET, None) => Ok((200, list(store, target))),
        (&Method::GET, Some(_)) => shown(target, stored(store, target)?).map(|object| (200, object)),
        (&Method::POST, None) => create(store, target, parse(body)?),
        (&Method::PUT, Some(_)) => replace(store, target, parse(body)?),
        (&Method::PATCH, Some(_)) if is_apply(head) => apply_patch(store, target, &parse(body)?),
        (&Method::PATCH, Some(_)) if content_type(head).starts_with("application/merge-patch") => {
            merge_patch(store, target, &parse(body)?)
        }
        (&Method::PATCH, Some(_)) => Err(Refusal {
            code: 415,
            reason: "UnsupportedMediaType",
            message: format!("no patch of type {}", content_type(head)),
        }),
        (&Method::DELETE, Some(_)) => delete(store, target, body),
        _ => Err(Refusal { code: 405, reason: "MethodNotAllowed", message: head.method.to_string() }),
    }
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| refusal::bad_request(error.to_string()))
}

fn stored<'a>(store: &'a Store, target: &Target) -> Result<&'a Stored, Refusal> {
    let key = Key::of(target);
    store.objects.get(&key).ok_or_else(|| refusal::not_found(&format!("{} {:?}", key.plural, key.name)))
}

fn list(store: &Store, target: &Target) -> Value {
    let items = watch::selected(store, target);
    let revision = store.revision().to_string();
    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": revision}, "items": items})
}

/// What a GET, or the answer to a write, shows: the object, or its scale.
fn view(target: &Target, object: &Value) -> Result<Value, Refusal> {
    match target.subresource.as_deref() {
        None | Some("status") => Ok(object.clone()),
        Some("scale") => Ok(scale(object)),
        Some(other) => Err(refusal::not_found(other)),
    }
}

/// The same of what is stored, with whose it is. Lists and watches, which nobody asks for that, leave it out.
fn shown(target: &Target, stored: &Stored) -> Result<Value, Refusal> {
    let mut object = view(target, &stored.object)?;
    set_meta(&mut object, "managedFields", managed::fields(&stored.owners));
    Ok(object)
}

fn scale(object: &Value) -> Value {
    let at = |pointer: &str| object.pointer(pointer).cloned().unwrap_or(Value::Null);
    let meta = json!({
        "name": at("/metadata/name"), "namespace": at("/metadata/namespace"), "uid": at("/metadata/uid"),
        "resourceVersion": at("/metadata/resourceVersion"),
    });
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta,
        "spec": {"replicas": at("/spec/replicas")},
        "status": {"replicas": object.pointer("/status/replicas").cloned().unwrap_or(json!(0)),
                   "selector": at("/status/selector")},
    })
}

fn create(store: &mut Store, target: &Target, mut object: Value) -> Result<(u16, Value), Refusal> {
    if text(&object, "/metadata/name").is_empty() {
        let base = text(&object, "/metadata/generateName").to_owned();
        let name = format!("{base}{:05}", store.revision().saturating_add(1));
        set_meta(&mut object, "name", json!(name));
    }
    let name = text(&object, "/metadata/name").to_owned();
    let key = Key { name: name.clone(), ..Key::of(target) };
    if store.objects.contains_key(&key) {
        return Err(refusal::exists(&name));
    }
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    let mut owners = Owners::new();
    apply::update(&Value::Null, &object, &mut owners, &manager(target, false));
    Ok((201, store.save(&key, object, owners)))
}

fn replace(store: &mut Store, target: &Target, sent: Value) -> Result<(u16, Value), Refusal> {
    let old = stored(store, target)?.clone();
    check_version(&old.object, &sent)?;
    write(store, target, &old, sent)
}

fn merge_patch(store: &mut Store, target: &Target, patch: &Value) -> Result<(u16, Value), Refusal> {
    let old = stored(store, target)?.clone();
    check_version(&old.object, patch)?;
    let mut merged = view(target, &old.object)?;
    merge(&mut merged, patch);
    write(store, target, &old, merged)
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        into.clone_from(patch);
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Some(map) = into.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            map.remove(name);
        } else {
            merge(map.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Stores what an update leaves of `old`: its status only through the status subresource, and nothing else there.
fn write(store: &mut Store, target: &Target, old: &Stored, sent: Value) -> Result<(u16, Value), Refusal> {
    let object = part(target, &old.object, sent);
    let mut owners = old.owners.clone();
    apply::update(&old.object, &object, &mut owners, &manager(target, false));
    settle(store, target, object, owners)
}

fn settle(
    store: &mut Store,
    target: &Target,
    object: Value,
    owners: Owners,
) -> Result<(u16, Value), Refusal> {
    let key = Key::of(target);
    let dying = object.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null());
    if dying && no_finalizers(&object) {
        return Ok((200, store.remove(&key).unwrap_or(object)));
    }
    let object = store.save(&key, object, owners.clone());
    shown(target, &Stored { object, owners }).map(|object| (200, object))
}

/// The part of `sent` that the (sub)resource may change, on the rest of `old`.
fn part(target: &Target, old: &Value, sent: Value) -> Value {
    let mut object = old.clone();
    let Some(map) = object.as_object_mut() else { return sent };
    match target.subresource.as_deref() {
        Some("status") => put(map, "status", sent.get("status").cloned()),
        Some("scale") => {
            if let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) {
                put(spec, "replicas", sent.pointer("/spec/replicas").cloned());
            }
        }
        _ => {
            let status = map.get("status").cloned();
            object = sent;
            if let Some(map) = object.as_object_mut() {
                put(map, "status", status);
            }
        }
    }
    object
}

fn put(map: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    match value {
        Some(value) => map.insert(name.to_owned(), value),
        None => map.remove(name),
    };
}

fn apply_patch(store: &mut Store, target: &Target, wanted: &Value) -> Result<(u16, Value), Refusal> {
    let Some(field_manager) = target.parameter("fieldManager") else {
        return Err(refusal::bad_request("fieldManager is required for apply"));
    };
    let key = Key::of(target);
    let old = store.objects.get(&key).cloned();
    if let Some(old) = &old {
        check_version(&old.object, wanted)?;
    } else if target.subresource.is_some() || wanted.pointer("/metadata/resourceVersion").is_some() {
        return Err(refusal::not_found(&key.name));
    }
    let Stored { object: before, mut owners } =
        old.clone().unwrap_or_else(|| Stored { object: skeleton(wanted, &key), owners: Owners::new() });
    let wanted = applied_part(target, wanted);
    let mut object = before;
    let manager = Manager { name: field_manager.to_owned(), ..manager(target, true) };
    apply::apply(&mut object, &mut owners, &manager, &wanted, target.asks("force")).map_err(|conflicts| {
        let all: Vec<String> = conflicts.iter().map(|c| format!("{} owns {}", c.owner, c.leaf)).collect();
        refusal::conflict(format!("Apply failed with conflicts: {}", all.join(", ")))
    })?;
    let created = old.is_none();
    settle(store, target, object, owners).map(|(_, object)| (if created { 201 } else { 200 }, object))
}

fn skeleton(wanted: &Value, key: &Key) -> Value {
    let at = |pointer: &str| wanted.pointer(pointer).cloned().unwrap_or(Value::Null);
    json!({"apiVersion": at("/apiVersion"), "kind": at("/kind"), "metadata": {"name": key.name}})
}

/// What of an applied configuration the (sub)resource lets through.
fn applied_part(target: &Target, wanted: &Value) -> Value {
    let Some(map) = wanted.as_object() else { return Value::Null };
    let mut kept = map.clone();
    match target.subresource.as_deref() {
        Some(sub) => {
            let field = if sub == "status" { "status" } else { "spec" };
            kept.retain(|name, _| name == field);
        }
        None => {
            kept.remove("status");
        }
    }
    if let Some(meta) = kept.get_mut("metadata").and_then(Value::as_object_mut) {
        for system in ["resourceVersion", "uid", "managedFields", "creationTimestamp", "generation"] {
            meta.remove(system);
        }
    }
    Value::Object(kept)
}

fn delete(store: &mut Store, target: &Target, body: &[u8]) -> Result<(u16, Value), Refusal> {
    let old = stored(store, target)?.clone();
    let options: Value = if body.is_empty() { Value::Null } else { parse(body)? };
    for field in ["uid", "resourceVersion"] {
        let wanted = text(&options, &format!("/preconditions/{field}"));
        let held = text(&old.object, &format!("/metadata/{field}"));
        if !wanted.is_empty() && wanted != held {
            return Err(refusal::conflict(format!("precondition failed: {field} is {held}, not {wanted}")));
        }
    }
    let key = Key::of(target);
    if no_finalizers(&old.object) {
        return Ok((200, store.remove(&key).unwrap_or(old.object)));
    }
    let mut object = old.object;
    set_meta(&mut object, "deletionTimestamp", json!("2026-01-01T00:00:00Z"));
    Ok((200, store.save(&key, object, old.owners)))
}

fn no_finalizers(object: &Value) -> bool {
    object.pointer("/metadata/finalizers").and_then(Value::as_array).is_none_or(Vec::is_empty)
}

fn check_version(held: &Value, sent: &Value) -> Result<(), Refusal> {
    for field in ["resourceVersion", "uid"] {
        let pointer = format!("/metadata/{field}");
        let wanted = text(sent, &pointer);
        if !wanted.is_empty() && wanted != text(held, &pointer) {
            return Err(refusal::conflict(
                "the object has been modified; apply your changes to the latest version",
            ));
        }
    }
    Ok(())
}

fn manager(target: &Target, applies: bool) -> Manager {
    Manager {
        name: target.parameter("fieldManager").unwrap_or("unknown").to_owned(),
        applies,
        subresource: target.subresource.clone().unwrap_or_default(),
    }
}
