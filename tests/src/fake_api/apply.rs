//! Server-side apply: who owns which leaf, who may change it, and what goes when its last owner lets go.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::lists::{self, ListKind};

/// One step from an object to a leaf of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A field of a map.
    Field(String),
    /// An item of a list that is a map, by its key.
    Item(String),
    /// An item of a list that is a set.
    Member(String),
}

/// The way to a leaf.
pub type Leaf = Vec<Step>;

/// Who wrote: a field manager, and whether by apply; a subresource counts apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// The field manager's name.
    pub name: String,
    /// Whether it applied, or created and updated.
    pub applies: bool,
    /// The subresource it wrote through; empty for the object itself.
    pub subresource: String,
}

/// Which leaves each manager owns.
pub type Owners = BTreeMap<Manager, BTreeSet<Leaf>>;

/// A leaf that another manager owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Whose it is.
    pub owner: String,
    /// The way to it, for people.
    pub leaf: String,
}

/// Applies `wanted` for `manager` to `live`. Without `force`, leaves that others hold at another value are conflicts.
pub fn apply(
    live: &mut Value,
    owners: &mut Owners,
    manager: &Manager,
    wanted: &Value,
    force: bool,
) -> Result<(), Vec<Conflict>> {
    let mine: BTreeMap<Leaf, &Value> = leaves(wanted);
    let held = leaves(live);
    let contested = |leaf: &Leaf| held.get(leaf).is_some_and(|value| mine.get(leaf) != Some(value));
    let conflicts = conflicts(owners, manager, mine.keys().filter(|leaf| contested(leaf)));
    if !force && !conflicts.is_empty() {
        return Err(conflicts);
    }
    let lost: BTreeSet<Leaf> = mine.keys().filter(|leaf| contested(leaf)).cloned().collect();
    let mine: BTreeSet<Leaf> = mine.into_keys().collect();
    for (_, theirs) in owners.iter_mut().filter(|(other, _)| *other != manager) {
        theirs.retain(|leaf| !lost.contains(leaf));
    }
    let before = owners.insert(manager.clone(), mine.clone()).unwrap_or_default();
    // Items go by their key, and only once everything else of them is gone.
    for pass in [Pass::Contents, Pass::Items] {
        for leaf in before.difference(&mine).filter(|leaf| !owned(owners, leaf)) {
            remove(live, &mut Vec::new(), leaf, pass);
        }
    }
    merge(live, wanted, &mut Vec::new());
    Ok(())
}

/// Hands what an update changed to its manager, and takes what is gone from everybody.
pub fn update(before: &Value, after: &Value, owners: &mut Owners, manager: &Manager) {
    let (old, new) = (leaves(before), leaves(after));
    let changed: BTreeSet<Leaf> = new
        .iter()
        .filter(|(leaf, value)| old.get(*leaf) != Some(*value))
        .map(|(leaf, _)| leaf.clone())
        .collect();
    for theirs in owners.values_mut() {
        theirs.retain(|leaf| new.contains_key(leaf) && !changed.contains(leaf));
    }
    owners.entry(manager.clone()).or_default().extend(changed);
    owners.retain(|_, leaves| !leaves.is_empty());
}

fn conflicts<'a>(
    owners: &Owners,
    manager: &Manager,
    contested: impl Iterator<Item = &'a Leaf>,
) -> Vec<Conflict> {
    let mut found = Vec::new();
    for leaf in contested {
        let owner = owners.iter().find(|(other, theirs)| *other != manager && theirs.contains(leaf));
        found.extend(owner.map(|(owner, _)| Conflict { owner: owner.name.clone(), leaf: text(leaf) }));
    }
    found
}

fn owned(owners: &Owners, leaf: &Leaf) -> bool {
    owners.values().any(|theirs| theirs.contains(leaf))
}

fn text(leaf: &Leaf) -> String {
    leaf.iter()
        .map(|step| match step {
            Step::Field(name) => format!(".{name}"),
            Step::Item(key) | Step::Member(key) => format!("[{key}]"),
        })
        .collect()
}

/// Every leaf of an object but what names it.
fn leaves(object: &Value) -> BTreeMap<Leaf, &Value> {
    let mut found = BTreeMap::new();
    walk(object, &mut Vec::new(), &mut Vec::new(), &mut found);
    found.retain(|leaf, _| !names(leaf));
    found
}

fn names(leaf: &Leaf) -> bool {
    let field = |at: usize, name: &str| leaf.get(at) == Some(&Step::Field(name.to_owned()));
    let system = [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "managedFields",
    ];
    field(0, "apiVersion")
        || field(0, "kind")
        || (field(0, "metadata") && system.iter().any(|name| field(1, name)))
}

fn walk<'a>(
    value: &'a Value,
    fields: &mut Vec<&'a str>,
    way: &mut Leaf,
    found: &mut BTreeMap<Leaf, &'a Value>,
) {
    match value {
        Value::Object(map) if !map.is_empty() && !lists::is_whole(fields) => {
            for (name, below) in map {
                fields.push(name);
                way.push(Step::Field(name.clone()));
                walk(below, fields, way, found);
                way.pop();
                fields.pop();
            }
        }
        Value::Array(items) => walk_list(value, items, fields, way, found),
        _ => {
            found.insert(way.clone(), value);
        }
    }
}

fn walk_list<'a>(
    whole: &'a Value,
    items: &'a [Value],
    fields: &mut Vec<&'a str>,
    way: &mut Leaf,
    found: &mut BTreeMap<Leaf, &'a Value>,
) {
    match list_kind(fields) {
        ListKind::Map(keys) => {
            for item in items {
                way.push(Step::Item(lists::key_of(item, keys)));
                walk(item, fields, way, found);
                way.pop();
            }
        }
        ListKind::Set => {
            for item in items {
                way.push(Step::Member(item.to_string()));
                found.insert(way.clone(), item);
                way.pop();
            }
        }
        ListKind::Atomic => {
            found.insert(way.clone(), whole);
        }
    }
}

fn list_kind(fields: &[&str]) -> ListKind {
    fields.split_last().map_or(ListKind::Atomic, |(field, above)| lists::kind(above, field))
}

fn merge<'a>(live: &mut Value, wanted: &'a Value, fields: &mut Vec<&'a str>) {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) if !lists::is_whole(fields) => {
            for (name, below) in wanted {
                fields.push(name);
                merge(live.entry(name.clone()).or_insert(Value::Null), below, fields);
                fields.pop();
            }
        }
        (Value::Array(live), Value::Array(wanted)) => merge_list(live, wanted, fields),
        (live, Value::Object(map)) if !lists::is_whole(fields) => {
            *live = Value::Object(Map::new());
            if !map.is_empty() {
                merge(live, wanted, fields);
            }
        }
        (live, wanted) => live.clone_from(wanted),
    }
}

fn merge_list<'a>(live: &mut Vec<Value>, wanted: &'a [Value], fields: &mut Vec<&'a str>) {
    match list_kind(fields) {
        ListKind::Atomic => *live = wanted.to_vec(),
        ListKind::Set => {
            let fresh: Vec<Value> = wanted.iter().filter(|item| !live.contains(item)).cloned().collect();
            live.extend(fresh);
        }
        ListKind::Map(keys) => {
            for item in wanted {
                let key = lists::key_of(item, keys);
                match live.iter_mut().find(|there| lists::key_of(there, keys) == key) {
                    Some(there) => merge(there, item, fields),
                    None => live.push(item.clone()),
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Contents,
    Items,
}

/// Takes a leaf away, and what is empty without it.
fn remove<'a>(live: &mut Value, fields: &mut Vec<&'a str>, leaf: &'a [Step], pass: Pass) {
    let Some((step, below)) = leaf.split_first() else { return };
    match (live, step) {
        (Value::Object(map), Step::Field(name)) => {
            fields.push(name);
            if let Some(value) = map.get_mut(name) {
                remove(value, fields, below, pass);
            }
            let last = below.is_empty() && pass == Pass::Contents;
            if last || (!below.is_empty() && map.get(name).is_some_and(is_empty)) {
                map.remove(name);
            }
            fields.pop();
        }
        (Value::Array(items), Step::Item(key)) => remove_item(items, fields, (key, below), pass),
        (Value::Array(items), Step::Member(member)) => {
            items.retain(|item| {
                let text = item.to_string();
                &text != member
            });
        }
        _ => {}
    }
}

fn remove_item<'a>(
    items: &mut Vec<Value>,
    fields: &mut Vec<&'a str>,
    (key, below): (&str, &'a [Step]),
    pass: Pass,
) {
    let ListKind::Map(keys) = list_kind(fields) else { return };
    match (names_item(below, keys), pass) {
        (true, Pass::Contents) => {}
        (true, Pass::Items) => {
            items.retain(|item| lists::key_of(item, keys) != key || !only_key_left(item, keys));
        }
        (false, _) => {
            for item in items.iter_mut().filter(|item| lists::key_of(item, keys) == key) {
                remove(item, fields, below, pass);
            }
        }
    }
}

fn names_item(below: &[Step], keys: &[&str]) -> bool {
    matches!(below, [Step::Field(name)] if keys.contains(&name.as_str()))
}

fn only_key_left(item: &Value, keys: &[&str]) -> bool {
    item.as_object().is_some_and(|map| map.keys().all(|name| keys.contains(&name.as_str())))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
