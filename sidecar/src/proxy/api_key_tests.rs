use std::fmt::Write;

use corral_limiter::compile;
use corral_wire::{ApiKeyDoc, IdentityDoc, KeyDigester, PlanDoc, PoolRef, QueueDoc};

use super::*;

const POOL_KEY: [u8; 32] = [7; 32];

fn digester() -> KeyDigester {
    KeyDigester::derive(&POOL_KEY)
}

fn digesters() -> Digesters {
    let digesters = Digesters::default();
    digesters.replace([digester()]);
    digesters
}

/// A plan that knows these keys, each with its client's name.
fn plan(keys: &[(&str, &str)]) -> Plan {
    let digester = digester();
    let api_keys = keys.iter().map(|(key, client)| ApiKeyDoc {
        digest: hex(&digester.digest(key.as_bytes())),
        client: (*client).to_owned(),
        tier: None,
    });
    let identity = IdentityDoc {
        api_keys: api_keys.collect(),
        digest_key: (!keys.is_empty()).then(|| digester.id().to_owned()),
        ..IdentityDoc::default()
    };
    let pool = PoolRef { namespace: "llm".to_owned(), name: "chat".to_owned() };
    let queue = QueueDoc { max_depth: 1, max_wait_ms: 1000, ..QueueDoc::default() };
    let doc = PlanDoc {
        version: corral_wire::PLAN_VERSION,
        pool,
        sequence: 1,
        identity,
        queue,
        ..PlanDoc::default()
    };
    compile(&doc).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Who sends these headers: a client's name, or why there is none.
fn who(lines: &[(&'static str, &str)], plan: &Plan, digesters: &Digesters) -> Result<String, NoClient> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    match caller(&headers, plan, digesters) {
        Caller::Known(client) => Ok(client.name.clone()),
        Caller::Unknown(why) => Err(why),
    }
}

#[test]
fn a_key_is_known_in_either_header_and_in_any_case_of_the_scheme() {
    let plan = plan(&[("key-of-ann", "ann")]);
    for lines in [
        [("authorization", "Bearer key-of-ann")],
        [("authorization", "bearer  key-of-ann ")],
        [("authorization", "BEARER key-of-ann")],
        [("x-api-key", "key-of-ann")],
    ] {
        assert_eq!(who(&lines, &plan, &digesters()), Ok("ann".to_owned()), "{lines:?}");
    }
}

#[test]
fn of_two_keys_the_first_known_one_counts() {
    let plan = plan(&[("key-of-ann", "ann"), ("key-of-bob", "bob")]);
    for (bearer, api_key, told) in [
        ("Bearer key-of-ann", "key-of-bob", "ann"),
        ("Bearer nobodys", "key-of-bob", "bob"),
        ("Basic a2V5LW9mLWFubg==", "key-of-bob", "bob"),
        ("Bearer key-of-ann", "nobodys", "ann"),
    ] {
        let lines = [("authorization", bearer), ("x-api-key", api_key)];
        assert_eq!(who(&lines, &plan, &digesters()), Ok(told.to_owned()), "{lines:?}");
    }
}

#[test]
fn no_key_and_a_key_of_nobody_are_told_apart() {
    let plan = plan(&[("key-of-ann", "ann")]);
    let long = format!("Bearer {}", "k".repeat(MAX_KEY_BYTES + 1));
    for lines in [
        vec![],
        vec![("authorization", "Basic a2V5")],
        vec![("authorization", "Bearer")],
        vec![("authorization", "Bearer  ")],
        vec![("x-api-key", "")],
    ] {
        assert_eq!(who(&lines, &plan, &digesters()), Err(NoClient::Keyless), "{lines:?}");
    }
    for lines in [
        [("authorization", "Bearer key-of-an")],
        [("authorization", "Bearer key-of-ann2")],
        [("authorization", &long)],
        [("x-api-key", "KEY-OF-ANN")],
    ] {
        assert_eq!(who(&lines, &plan, &digesters()), Err(NoClient::UnknownKey), "{lines:?}");
    }
}

#[test]
fn without_the_digester_of_the_plan_nobody_is_known() {
    let plan = plan(&[("key-of-ann", "ann")]);
    let other = Digesters::default();
    other.replace([KeyDigester::derive(&[8; 32])]);
    assert_eq!(who(&[("x-api-key", "key-of-ann")], &plan, &other), Err(NoClient::UnknownKey));
}
