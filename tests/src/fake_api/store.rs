//! What is stored, and the history that watches are served from.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::apply::Owners;
use super::path::Target;

/// Names one stored object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource, in plural.
    pub plural: String,
    /// The namespace, if it lies in one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(group: &str, plural: &str, namespace: Option<&str>, name: &str) -> Self {
        Self {
            group: group.to_owned(),
            plural: plural.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        }
    }

    pub(crate) fn of(target: &Target) -> Self {
        let name = target.name.as_deref().unwrap_or_default();
        Self::new(&target.group, &target.plural, target.namespace.as_deref(), name)
    }

    pub(crate) fn within(&self, target: &Target) -> bool {
        self.group == target.group
            && self.plural == target.plural
            && target.namespace.as_ref().is_none_or(|wanted| self.namespace.as_ref() == Some(wanted))
    }
}

/// One change of one object.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    /// What it was; none when it is new.
    pub(crate) before: Option<Value>,
    /// What it is; none when it is gone, and then `before` carries the revision of its end.
    pub(crate) after: Option<Value>,
}

#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) object: Value,
    pub(crate) owners: Owners,
}

/// The objects, their history, and those who watch.
#[derive(Default)]
pub struct Store {
    pub(crate) objects: BTreeMap<Key, Stored>,
    pub(crate) history: Vec<Change>,
    pub(crate) revision: u64,
    pub(crate) oldest: u64,
    pub(crate) watchers: Vec<super::watch::Watcher>,
}

impl Store {
    /// One object.
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key).map(|stored| &stored.object)
    }

    /// Every object with its key, in the order of keys.
    pub fn all(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.objects.iter().map(|(key, stored)| (key, &stored.object))
    }

    /// Stores an object whole, as another controller would; metadata that the server keeps is filled in.
    pub fn put(&mut self, object: Value, plural: &str) -> Value {
        let group = text(&object, "/apiVersion").split_once('/').map_or("", |(group, _)| group).to_owned();
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).map(str::to_owned);
        let key =
            Key { group, plural: plural.to_owned(), namespace, name: text(&object, "/metadata/name").into() };
        let owners = self.objects.get(&key).map(|stored| stored.owners.clone()).unwrap_or_default();
        self.save(&key, object, owners)
    }

    /// Removes an object at once, and what it owned.
    pub fn remove(&mut self, key: &Key) -> Option<Value> {
        let stored = self.objects.remove(key)?;
        self.revision = self.revision.saturating_add(1);
        let mut last = stored.object;
        set_meta(&mut last, "resourceVersion", json!(self.revision.to_string()));
        self.tell(key, Some(last.clone()), None);
        self.collect(text(&last, "/metadata/uid"));
        Some(last)
    }

    /// Forgets the history: a watch that starts before now is answered 410.
    pub fn compact(&mut self) {
        self.history.clear();
        self.oldest = self.revision;
    }

    /// The revision of the newest change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Stores an object if it differs from what is there, with the next revision; it returns what is stored.
    pub(crate) fn save(&mut self, key: &Key, mut object: Value, owners: Owners) -> Value {
        let before = self.objects.get(key).map(|stored| stored.object.clone());
        keep_system_fields(&mut object, before.as_ref(), self.revision);
        if before.as_ref() == Some(&object) {
            self.objects.insert(key.clone(), Stored { object: object.clone(), owners });
            return object;
        }
        self.revision = self.revision.saturating_add(1);
        set_meta(&mut object, "resourceVersion", json!(self.revision.to_string()));
        if before.is_none() && key.namespace.is_some() {
            set_meta(&mut object, "namespace", json!(key.namespace));
        }
        self.objects.insert(key.clone(), Stored { object: object.clone(), owners });
        self.tell(key, before, Some(object.clone()));
        object
    }

    fn tell(&mut self, key: &Key, before: Option<Value>, after: Option<Value>) {
        let change = Change { revision: self.revision, key: key.clone(), before, after };
        self.watchers.retain(|watcher| watcher.tell(&change));
        self.history.push(change);
    }

    /// Removes what has owners, when the last of them is gone.
    fn collect(&mut self, uid: &str) {
        let orphaned = |object: &Value| {
            let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
            owners.is_some_and(|owners| {
                owners.iter().any(|owner| text(owner, "/uid") == uid)
                    && !owners.iter().any(|owner| self.exists(text(owner, "/uid")))
            })
        };
        let gone: Vec<Key> =
            self.all().filter(|(_, object)| orphaned(object)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.remove(&key);
        }
    }

    fn exists(&self, uid: &str) -> bool {
        self.all().any(|(_, object)| text(object, "/metadata/uid") == uid)
    }
}

/// A string of an object; empty when there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn set_meta(object: &mut Value, field: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        let meta = map.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        if let Some(meta) = meta.as_object_mut() {
            meta.insert(field.to_owned(), value);
        }
    }
}

fn keep_system_fields(object: &mut Value, before: Option<&Value>, revision: u64) {
    let kept = |field: &str| before.and_then(|old| old.pointer(&format!("/metadata/{field}"))).cloned();
    let next = revision.saturating_add(1);
    let created = Timestamp::from_second(1_767_225_600_i64.saturating_add_unsigned(next)).unwrap_or_default();
    let uid = json!(format!("00000000-0000-4000-8000-{next:012}"));
    set_meta(object, "uid", kept("uid").unwrap_or(uid));
    set_meta(object, "creationTimestamp", kept("creationTimestamp").unwrap_or(json!(created.to_string())));
    if let Some(version) = kept("resourceVersion") {
        set_meta(object, "resourceVersion", version);
    }
    let Some(spec) = object.get("spec").cloned() else { return };
    let generation = before.and_then(|old| old.pointer("/metadata/generation")).and_then(Value::as_i64);
    let changed = before.is_some_and(|old| old.get("spec") != Some(&spec));
    let generation = generation.unwrap_or(1).saturating_add(i64::from(changed));
    set_meta(object, "generation", json!(generation));
}
