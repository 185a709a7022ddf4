//! The plain build refuses what the API server refuses, at the same field and in the same words.
#![expect(clippy::unwrap_used, reason = "a helper of tests may panic as a test may")]

mod case;

use std::collections::{BTreeMap, BTreeSet};

use case::{Case, Cause, Expect};
use corral_crds::{manifest, rules};

fn causes(case: &Case) -> Vec<Cause> {
    let text = serde_yaml::to_string(&case.object).unwrap();
    let errors = manifest::read(&text).err().map(|errors| errors.0).unwrap_or_default();
    let told = |error: manifest::ReadError| {
        let field = if error.path == "metadata.name" { String::new() } else { error.path };
        Cause { field, message: error.message }
    };
    errors.into_iter().map(told).collect()
}

#[test]
fn every_case_is_judged_as_by_the_api() {
    for case in case::all() {
        let found = causes(&case);
        assert!(case.is_met_by(&found), "{} ({}): {found:?}", case.name, case.about);
    }
}

#[test]
fn everything_has_a_case_that_is_accepted_and_one_that_is_refused() {
    let mut seen: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for case in case::all() {
        seen.entry(case.about).or_default().insert(matches!(case.expect, Expect::Word(_)));
    }
    for (about, kinds) in seen {
        assert_eq!(kinds.len(), 2, "{about}");
    }
}

#[test]
fn every_rule_has_a_case_that_breaks_it() {
    let cases = case::all();
    for rule in rules::all() {
        let broken = cases.iter().any(|case| match &case.expect {
            Expect::Refused { message, .. } => !message.is_empty() && rule.message.contains(message.as_str()),
            Expect::Word(_) => false,
        });
        assert!(broken, "{}", rule.message);
    }
}

#[test]
fn names_of_cases_and_objects_can_stand_side_by_side_in_a_cluster() {
    let cases = case::all();
    let names: BTreeSet<_> = cases.iter().map(|case| (&case.about, &case.name)).collect();
    assert_eq!(names.len(), cases.len());
}

#[test]
fn a_time_zone_that_nobody_knows_is_refused_though_no_schema_can_tell() {
    let pool = |zone: &str| {
        format!(
            "apiVersion: corral.dev/v1alpha1\nkind: OllamaPool\nmetadata: {{ name: chat }}\nspec: {{ autoscaling: {{ \
             maxReplicas: 4, schedules: [{{ name: a, timeZone: {zone}, from: '08:00', to: '18:00', minReplicas: 2 }}] }} }}\n"
        )
    };
    assert!(manifest::read(&pool("America/Argentina/Buenos_Aires")).is_ok());
    let [error] = &manifest::read(&pool("Europe/Atlantis")).unwrap_err().0[..] else { panic!("one error") };
    assert_eq!(error.path, "spec.autoscaling.schedules[0].timeZone");
    assert!(error.message.contains("Europe/Atlantis") && error.message.contains("IANA"), "{}", error.message);
}
