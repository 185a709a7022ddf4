//! The API server takes and refuses what the cases of the definitions say, field by field, and takes every example.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::scene::Scene;
use crate::cluster::api::Api;

const CASES: [&str; 2] = [
    include_str!("../../../crds/tests/cases/ollamapools.yaml"),
    include_str!("../../../crds/tests/cases/ratelimitpolicies.yaml"),
];

/// What the server adds when the schema already refuses.
const NOT_CHECKED: &str = "some validation rules were not checked";

/// One object, and what the API says of it.
#[derive(Debug, Deserialize)]
struct Case {
    about: String,
    name: String,
    object: Value,
    expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Expect {
    Accepted(String),
    Refused { field: String, message: String },
}

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let api = Api::open(&scene.cluster)?;
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in cases()? {
        count += 1;
        if let Err(error) = judge(scene, &api, &case) {
            wrong.push(format!("{}: {}: {error:#}", case.about, case.name));
        }
    }
    ensure!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
    scene.tell(&format!("{count} cases are judged as in process"));
    every_example_is_taken(scene)
}

fn cases() -> Result<Vec<Case>> {
    let mut all = Vec::new();
    for file in CASES {
        all.extend(serde_yaml::from_str::<Vec<Case>>(file)?);
    }
    Ok(all)
}

fn judge(scene: &Scene, api: &Api, case: &Case) -> Result<()> {
    let kind = case.object.get("kind").and_then(Value::as_str).unwrap_or_default();
    let plural = if kind == "OllamaPool" { "ollamapools" } else { "ratelimitpolicies" };
    let query = "dryRun=All&fieldValidation=Strict";
    let path = format!("/apis/corral.dev/v1alpha1/namespaces/{}/{plural}?{query}", scene.namespace);
    let answer = api.post(&path, &case.object)?;
    match &case.expect {
        Expect::Accepted(word) => {
            ensure!(word == "accepted", "`{word}` is no verdict");
            ensure!(answer.status == 201, "refused: {}", answer.text());
            Ok(())
        }
        Expect::Refused { field, message } => refused(&answer.json()?, field, message),
    }
}

/// This cause, and none about another field.
fn refused(answer: &Value, field: &str, message: &str) -> Result<()> {
    let causes = answer.pointer("/details/causes").and_then(Value::as_array).cloned().unwrap_or_default();
    let text =
        |cause: &Value, key: &str| cause.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    // The server calls the object itself `<nil>`; the check of the scale subresource begins its paths with a dot.
    let place = |cause: &Value| text(cause, "field").replace("<nil>", "").trim_start_matches('.').to_owned();
    let meant = |cause: &&Value| place(cause) == field && text(cause, "message").contains(message);
    ensure!(causes.iter().any(|cause| meant(&cause)), "not refused at `{field}` for `{message}`: {answer}");
    let mut others = causes.iter().filter(|cause| !text(cause, "message").contains(NOT_CHECKED));
    let other = others.find(|cause| !place(cause).starts_with(field));
    other.map_or(Ok(()), |cause| bail!("also refused at {cause}"))
}

fn every_example_is_taken(scene: &Scene) -> Result<()> {
    let folder = scene.cluster.parts.chart.join("../../examples");
    let mut count = 0;
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let file = entry?.path();
        let apply =
            ["apply", "--dry-run=server", "--validate=strict", "--namespace", &scene.namespace, "--filename"];
        scene.cluster.kubectl(apply).arg(&file).run()?;
        count += 1;
    }
    ensure!(count > 0, "there is no example");
    scene.tell(&format!("{count} examples are taken"));
    Ok(())
}
