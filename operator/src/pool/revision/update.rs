//! Whether this operator would render a pool's pods otherwise than they are, and what that would change. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::stored::Kept;
use crate::listmap;
use crate::pool::build::BuildError;
use crate::pool::build::template::TemplateInvalid;

/// The most places that a message names.
const NAMED: usize = 8;

/// What an update would bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Nothing: the pods are as this operator renders them.
    Nothing,
    /// This, in words.
    Available(String),
    /// This operator refuses the `podTemplate` that an older one took.
    Refused(TemplateInvalid),
}

impl Update {
    /// Holds what is kept against what is rendered now.
    pub fn of(kept: &Kept, rendered: Result<Value, BuildError>) -> Result<Self, BuildError> {
        match rendered {
            Ok(rendered) => Ok(told(&changes(kept, &rendered)).map_or(Self::Nothing, Self::Available)),
            Err(BuildError::Template(refused)) => Ok(Self::Refused(refused)),
            Err(error) => Err(error),
        }
    }
}

fn told(changes: &[String]) -> Option<String> {
    let shown: Vec<&str> = changes.iter().take(NAMED).map(String::as_str).collect();
    match changes.len().saturating_sub(shown.len()) {
        _ if shown.is_empty() => None,
        0 => Some(shown.join(", ")),
        more => Some(format!("{} and {more} more", shown.join(", "))),
    }
}

/// Each change: images with what they were and would be, all else by its place alone, for a value may be long, or
/// nobody's business.
fn changes(kept: &Kept, rendered: &Value) -> Vec<String> {
    let mut places = BTreeSet::new();
    let mut take = |path: &[String]| {
        if path.last().is_none_or(|field| field != "image") {
            places.insert(path.join("."));
        }
    };
    listmap::missing(&kept.template, rendered, &mut take);
    // What the API server filled in is not there to be taken away.
    if !kept.adopted {
        listmap::missing(rendered, &kept.template, &mut take);
    }
    let (before, after) = (images(&kept.template), images(rendered));
    let replaced = before.iter().filter_map(|(name, old)| {
        let new = after.get(name).filter(|new| *new != old)?;
        Some(format!("image of {name} ({old} → {new})"))
    });
    replaced.chain(places).collect()
}

/// The image of each container, by its name.
fn images(template: &Value) -> BTreeMap<&str, &str> {
    let lists = ["/spec/initContainers", "/spec/containers"].into_iter();
    let containers = lists.filter_map(|list| template.pointer(list)?.as_array()).flatten();
    containers.filter_map(|one| Some((one.get("name")?.as_str()?, one.get("image")?.as_str()?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(image: &str, args: &[&str]) -> Value {
        json!({"spec": {"containers": [{"name": "ollama", "image": image, "args": args}]}})
    }

    fn available(kept: &Kept, rendered: Value) -> Update {
        Update::of(kept, Ok(rendered)).unwrap()
    }

    #[test]
    fn what_is_the_same_brings_nothing() {
        assert_eq!(available(&Kept::rendered(pod("a", &[])), pod("a", &[])), Update::Nothing);
    }

    #[test]
    fn images_are_told_with_what_they_were_and_the_rest_by_place() {
        let told = "image of ollama (a → b), spec.containers.ollama.args";
        assert_eq!(
            available(&Kept::rendered(pod("a", &["x"])), pod("b", &["y"])),
            Update::Available(told.to_owned())
        );
    }

    #[test]
    fn what_would_go_is_told_but_not_what_a_server_filled_in() {
        let mut more = pod("a", &[]);
        more["spec"]["schedulerName"] = json!("default-scheduler");
        let gone = Update::Available("spec.schedulerName".to_owned());
        assert_eq!(available(&Kept::rendered(more.clone()), pod("a", &[])), gone);
        assert_eq!(available(&Kept::adopted(more), pod("a", &[])), Update::Nothing);
    }

    #[test]
    fn a_long_list_is_cut() {
        let labels: serde_json::Map<String, Value> =
            (0..20).map(|nth| (format!("l{nth:02}"), json!("x"))).collect();
        let rendered = json!({"metadata": {"labels": labels}});
        let Update::Available(told) =
            available(&Kept::rendered(json!({"metadata": {"labels": {"a": "b"}}})), rendered)
        else {
            unreachable!()
        };
        assert!(told.ends_with("and 13 more"), "{told}");
    }
}
