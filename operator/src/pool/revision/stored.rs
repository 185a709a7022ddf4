//! How a pod template is kept: what stands in a `ControllerRevision`, and reading it again, years and releases later.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::inputs::RevisionId;
use crate::pool::validate::ValidPool;

/// The format that is written. A release that cannot be read by older ones writes a higher one.
const FORMAT: u64 = 1;

/// A pod template as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    format: u64,
    /// Whether it was taken from a Deployment, with all that the API server filled in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// The template.
    pub template: Value,
}

impl Kept {
    /// A template as it was rendered.
    pub fn rendered(template: Value) -> Self {
        Self { format: FORMAT, adopted: false, template }
    }

    /// A template as a Deployment had it.
    pub fn adopted(template: Value) -> Self {
        Self { format: FORMAT, adopted: true, template }
    }
}

/// A revision that this release cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "ControllerRevision {name} {what}: the Deployment is left as it is; run the operator that wrote it, or ask for the \
     pods to be rendered anew with the annotation {annotation} on the pool",
    annotation = crate::names::UPDATE
)]
pub struct Unreadable {
    /// What it is called.
    pub name: String,
    /// What is wrong with it.
    pub what: String,
}

/// What a revision keeps.
pub fn read(revision: &ControllerRevision) -> Result<Kept, Unreadable> {
    let name = revision.metadata.name.clone().unwrap_or_default();
    parse(revision.data.as_ref().map(|data| &data.0)).map_err(|what| Unreadable { name, what })
}

fn parse(data: Option<&Value>) -> Result<Kept, String> {
    let data = data.ok_or("is empty")?;
    let format = data.get("format").and_then(Value::as_u64).ok_or("says no format")?;
    if format != FORMAT {
        return Err(format!("is of format {format}, which this operator does not know"));
    }
    let kept: Kept =
        serde_json::from_value(data.clone()).map_err(|error| format!("cannot be read: {error}"))?;
    let template: Result<PodTemplateSpec, _> = serde_json::from_value(kept.template.clone());
    match template {
        Ok(PodTemplateSpec { spec: Some(_), .. }) => Ok(kept),
        Ok(_) => Err("holds no pod".to_owned()),
        Err(error) => Err(format!("holds no pod template: {error}")),
    }
}

/// The object that keeps a template, as number `number`.
pub fn object(
    pool: &ValidPool,
    id: &RevisionId,
    number: i64,
    kept: &Kept,
) -> Result<ControllerRevision, serde_json::Error> {
    Ok(ControllerRevision {
        metadata: pool.object_meta(&id.name(&pool.name)),
        data: Some(RawExtension(serde_json::to_value(kept)?)),
        revision: number,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_kept_reads_back() {
        for kept in [
            Kept::rendered(json!({"spec": {"containers": []}})),
            Kept::adopted(json!({"spec": {"containers": []}})),
        ] {
            assert_eq!(parse(Some(&serde_json::to_value(&kept).unwrap())), Ok(kept));
        }
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (data, told) in [
            (json!({"format": 2, "template": {"spec": {"containers": []}}}), "is of format 2"),
            (json!({"template": {"spec": {"containers": []}}}), "says no format"),
            (json!({"format": 1}), "cannot be read"),
            (json!({"format": 1, "template": {}}), "holds no pod"),
            (json!({"format": 1, "template": {"spec": 3}}), "holds no pod template"),
        ] {
            let error = parse(Some(&data)).unwrap_err();
            assert!(error.starts_with(told), "{data}: {error}");
        }
        assert_eq!(parse(None), Err("is empty".to_owned()));
    }
}
