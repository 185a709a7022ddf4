//! What a watch tells late is not believed: no object goes back to what it was, and none that is gone comes back.
//!
//! The events of one watch have rising resource versions. One below what was told before was replayed on the way, by a
//! proxy or by an API server that lags behind. A list is believed as it is, also where the versions begin anew after a
//! restored backup.

use kube::Resource;
use kube::runtime::watcher::{Event, Result};

/// How far one watch has come.
#[derive(Debug, Default)]
pub struct Freshness {
    newest: Option<u64>,
}

impl Freshness {
    /// Whether an event is to be believed. Versions that are no numbers say nothing, and pass.
    pub fn admits<K: Resource>(&mut self, event: &Result<Event<K>>) -> bool {
        match event {
            Ok(Event::Init) => self.newest = None,
            Ok(Event::InitApply(object)) => self.newest = self.newest.max(version(object)),
            Ok(Event::Apply(object) | Event::Delete(object)) => {
                let told = version(object);
                if told.is_some() && told < self.newest {
                    tracing::warn!(name = ?object.meta().name, "a watch told what is long past; it is not believed");
                    return false;
                }
                self.newest = self.newest.max(told);
            }
            Ok(Event::InitDone) | Err(_) => {}
        }
        true
    }
}

fn version(object: &impl Resource) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;

    use super::*;

    fn at(version: &str) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.resource_version = Some(version.to_owned());
        secret
    }

    #[test]
    fn what_is_older_than_what_was_told_is_not_believed() {
        let mut freshness = Freshness::default();
        assert!(freshness.admits(&Ok(Event::Apply(at("7")))));
        assert!(!freshness.admits(&Ok(Event::Apply(at("6")))));
        assert!(!freshness.admits(&Ok(Event::Delete(at("6")))));
        assert!(freshness.admits(&Ok(Event::Apply(at("7")))), "once more, and harmless");
        assert!(freshness.admits(&Ok(Event::Apply(at("10")))), "as numbers, not as text");
    }

    #[test]
    fn a_list_begins_anew_and_what_is_no_number_passes() {
        let mut freshness = Freshness::default();
        assert!(freshness.admits(&Ok(Event::Apply(at("70")))));
        assert!(freshness.admits(&Ok(Event::<Secret>::Init)));
        assert!(freshness.admits(&Ok(Event::InitApply(at("4")))));
        assert!(!freshness.admits(&Ok(Event::Apply(at("3")))));
        assert!(freshness.admits(&Ok(Event::Apply(at("5")))));
        assert!(freshness.admits(&Ok(Event::Apply(at("x")))));
    }
}
