use super::*;

const ALICE: &str = "alice-key-1";

fn named(secrets: &[(&str, Option<&str>)]) -> Vec<ApiKeySecret> {
    let one = |(name, tier): &(&str, Option<&str>)| ApiKeySecret {
        secret_name: (*name).to_owned(),
        tier: tier.map(str::to_owned),
    };
    secrets.iter().map(one).collect()
}

fn entries(entries: &[(&str, &str)]) -> Entries {
    entries.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

fn digester() -> KeyDigester {
    KeyDigester::derive(&[7; 32])
}

/// Client and tier of each key, and what is wrong.
fn of_one(content: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let (secrets, content) = (named(&[("keys", None)]), entries(content));
    told(&read(&secrets, |_| Some(&content), &digester()))
}

fn told(ring: &KeyRing) -> (Vec<String>, Vec<String>) {
    let key = |key: &ApiKeyDoc| format!("{}/{}", key.client, key.tier.as_deref().unwrap_or("-"));
    (ring.keys.iter().map(key).collect(), ring.problems.iter().map(ToString::to_string).collect())
}

#[test]
fn each_entry_is_a_client_with_one_key_or_two() {
    let (keys, problems) = of_one(&[("alice", ALICE), ("bob", "bob-key-1\r\nbob-key-2\n")]);
    assert_eq!((keys, problems), (vec!["alice/-".into(), "bob/-".into(), "bob/-".into()], Vec::new()));
}

#[test]
fn a_key_is_found_again_by_its_digest_and_the_name_of_the_digester() {
    let (secrets, content) = (named(&[("keys", Some("gold"))]), entries(&[("alice", ALICE)]));
    let ring = read(&secrets, |_| Some(&content), &digester());
    assert_eq!(ring.digest_key.as_deref(), Some(digester().id()));
    assert_eq!(ring.keys[0].digest, hex::encode(digester().digest(ALICE.as_bytes())));
    assert_eq!(ring.keys[0].tier.as_deref(), Some("gold"));
    assert_eq!(ring.keys[0].digest.len(), 64);
}

#[test]
fn a_pool_without_secrets_has_no_keys_and_no_digester() {
    assert_eq!(read(&[], |_| None, &digester()), KeyRing::default());
}

#[test]
fn a_secret_that_is_not_there_is_told_and_the_others_count() {
    let secrets = named(&[("gone", None), ("keys", None)]);
    let content = entries(&[("alice", ALICE)]);
    let ring = read(&secrets, |name| (name == "keys").then_some(&content), &digester());
    let (keys, problems) = told(&ring);
    assert_eq!(keys, ["alice/-"]);
    assert_eq!(problems, ["spec.identity.apiKeys[0]: there is no Secret gone"]);
}

#[test]
fn what_is_wrong_with_an_entry_is_told_by_its_name_and_takes_out_that_entry_alone() {
    let long = "k".repeat(513);
    for (entry, value, why) in [
        ("bob", "", "one API key, or two"),
        ("bob", "\n\n", "one API key, or two"),
        ("bob", "bob-key-1\nbob-key-2\nbob-key-3", "one API key, or two"),
        ("bob", "short-7", "8 to 512 visible"),
        ("bob", "with a space", "8 to 512 visible"),
        ("bob", "with-ümlaut", "8 to 512 visible"),
        ("bob", long.as_str(), "8 to 512 visible"),
        ("b ob", "bob-key-1", "a client's name"),
    ] {
        let (keys, problems) = of_one(&[("alice", ALICE), (entry, value)]);
        assert_eq!(keys, ["alice/-"], "{value}");
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(
            problem.contains(&format!("Secret keys, entry {entry}: ")) && problem.contains(why),
            "{problem}"
        );
        assert!(value.trim().is_empty() || !problem.contains(value), "{problem}");
    }
}

#[test]
fn a_secret_without_a_usable_key_is_told() {
    let (keys, problems) = of_one(&[]);
    assert!(keys.is_empty());
    assert_eq!(problems, ["spec.identity.apiKeys[0]: Secret keys has no usable API key"]);
}

#[test]
fn a_key_that_two_clients_have_counts_for_neither() {
    let (keys, problems) = of_one(&[("alice", ALICE), ("bob", ALICE), ("carol", "carol-key-1")]);
    assert_eq!(keys, ["carol/-"]);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("entry bob: entry alice has the same API key"), "{problems:?}");
    assert!(!problems[0].contains(ALICE));
}

#[test]
fn a_key_that_a_client_has_twice_counts_once() {
    let (keys, problems) = of_one(&[("alice", "alice-key-1\nalice-key-1")]);
    assert_eq!((keys.len(), problems.len()), (1, 0));
}

#[test]
fn a_client_is_of_one_tier() {
    let secrets = named(&[("gold", Some("gold")), ("more", Some("gold")), ("free", Some("free"))]);
    let content = [
        entries(&[("alice", ALICE)]),
        entries(&[("alice", "alice-key-2")]),
        entries(&[("alice", "alice-key-3"), ("bob", "bob-key-1")]),
    ];
    let place = |name: &str| secrets.iter().position(|secret| secret.secret_name == name);
    let ring = read(&secrets, |name| content.get(place(name)?), &digester());
    let (keys, problems) = told(&ring);
    assert_eq!(keys, ["alice/gold", "alice/gold", "bob/free"]);
    assert_eq!(
        problems,
        ["spec.identity.apiKeys[2]: Secret free, entry alice: its client is of another tier in Secret gold"]
    );
}

#[test]
fn beyond_4096_keys_the_rest_is_told_and_does_not_count() {
    let many: Entries = (0..MAX_API_KEYS + 3)
        .map(|n| (format!("c{n:05}"), format!("key-number-{n:05}").into_bytes()))
        .collect();
    let secrets = named(&[("keys", None)]);
    let ring = read(&secrets, |_| Some(&many), &digester());
    assert_eq!(ring.keys.len(), MAX_API_KEYS);
    assert!(ring.problems[0].to_string().contains("3 do not count"), "{:?}", ring.problems);
}

#[test]
fn long_names_take_no_more_of_a_plan_than_there_is() {
    let many: Entries =
        (0..MAX_API_KEYS).map(|n| (format!("{n:063}"), format!("key-number-{n:05}").into_bytes())).collect();
    let tier = "t".repeat(63);
    let secrets = named(&[("keys", Some(&tier))]);
    let ring = read(&secrets, |_| Some(&many), &digester());
    let bytes = serde_json::to_vec(&ring.keys).unwrap().len();
    assert!(bytes <= MAX_KEY_BYTES && bytes > MAX_KEY_BYTES * 9 / 10, "{bytes}");
    assert_eq!(ring.problems.len(), 1);
}
