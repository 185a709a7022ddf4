//! What must hold of every run.

use corral_operator::pool::build::secrets;
use corral_tests::fake_api::record::Write;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use super::injection::Injection;
use super::run::{End, Run};

/// How many more writes than in the calm run may be tried: above it, something does not wait between its tries.
const MORE_TRIES: u64 = 30;

/// Which laws a run broke, in words; none where all hold.
pub(crate) fn broken(injection: &Injection, calm: &Run, run: &Run) -> Option<String> {
    let patience = injection.patience();
    let found = [
        (!run.hit).then(|| "the fault never came".to_owned()),
        difference(&calm.end, &run.end),
        (run.took > patience).then(|| format!("the last write came after {:?}, not {patience:?}", run.took)),
        run.calls.iter().find(|call| call.removes_blindly).map(|call| format!("a blind removal: {call:?}")),
        falls(&run.written, &calm.written, replicas).map(|what| format!("replicas {what}")),
        falls(&run.written, &calm.written, limits).map(|what| format!("limits {what}")),
        (run.writes > calm.writes + MORE_TRIES).then(|| format!("{} tries of writes", run.writes)),
    ];
    let words: Vec<String> = found.into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join("; "))
}

fn difference(calm: &End, run: &End) -> Option<String> {
    if calm == run {
        return None;
    }
    let object = |name: &str, end: &End| {
        end.objects.iter().find(|(other, _)| other == name).map_or(Value::Null, |(_, object)| object.clone())
    };
    let names = calm.objects.iter().chain(&run.objects).map(|(name, _)| name);
    let mut found: Vec<String> =
        names.filter_map(|name| first(name, &object(name, calm), &object(name, run))).collect();
    found.sort();
    found.dedup();
    if calm.pods != run.pods {
        found.push(format!("pods are {:?}, not {:?}", run.pods, calm.pods));
    }
    Some(found.join("; "))
}

/// The first place where two values differ.
fn first(place: &str, wanted: &Value, found: &Value) -> Option<String> {
    if wanted == found {
        return None;
    }
    let below = match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            let mut names = wanted.keys().chain(found.keys());
            let of = |map: &serde_json::Map<String, Value>, name: &String| {
                map.get(name).cloned().unwrap_or_default()
            };
            names.find_map(|name| first(&format!("{place}.{name}"), &of(wanted, name), &of(found, name)))
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            let mut pairs = wanted.iter().zip(found).enumerate();
            pairs.find_map(|(nth, (wanted, found))| first(&format!("{place}[{nth}]"), wanted, found))
        }
        _ => None,
    };
    below.or_else(|| Some(format!("{place} is {found}, not {wanted}")))
}

/// Where a number fell to anything but what it is in the end of the calm run: then something was taken away that is
/// needed.
fn falls(written: &[Write], calm: &[Write], number: fn(&Write) -> Option<usize>) -> Option<String> {
    let end = calm.iter().rev().find_map(number);
    let numbers: Vec<usize> = written.iter().filter_map(number).collect();
    let fall = numbers.windows(2).find(|pair| pair[1] < pair[0] && Some(pair[1]) != end)?;
    Some(format!("fell from {} to {}", fall[0], fall[1]))
}

fn replicas(write: &Write) -> Option<usize> {
    let is_it = write.resource == "deployments";
    is_it.then(|| usize::try_from(write.object["spec"]["replicas"].as_u64()?).ok())?
}

fn limits(write: &Write) -> Option<usize> {
    if write.resource != "secrets" || !write.name.ends_with("-plan") {
        return None;
    }
    let secret: Secret = serde_json::from_value(write.object.clone()).ok()?;
    Some(secrets::plan(&secret)?.limits.len())
}
