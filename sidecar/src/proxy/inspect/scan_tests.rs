use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;

fn model(body: &str) -> Result<Option<String>, BadJson> {
    scan(body.as_bytes()).map(|facts| facts.model.map(Cow::into_owned))
}

#[test]
fn the_model_is_found_however_its_key_is_spelt() {
    assert_eq!(model(r#"{"model":"a"}"#), Ok(Some("a".to_owned())));
    assert_eq!(model(r#" { "stream" : false , "MODEL" : "a" } "#), Ok(Some("a".to_owned())));
    assert_eq!(model(r#"{"\u006dodel":"a"}"#), Ok(Some("a".to_owned())));
    assert_eq!(model(r#"{"messages":[{"model":"x"}],"model":"a"}"#), Ok(Some("a".to_owned())));
    assert_eq!(model(r#"{"prompt":"\"model\":\"x\"","model":"a"}"#), Ok(Some("a".to_owned())));
    assert_eq!(model(r#"{"model":"t\u0069ny\ud83d\ude00\/"}"#), Ok(Some("tiny😀/".to_owned())));
}

#[test]
fn absent_and_null_are_no_model() {
    assert_eq!(model("{}"), Ok(None));
    assert_eq!(model(r#"{"model":null}"#), Ok(None));
    assert_eq!(model(r#"{"options":{"model":"x"}}"#), Ok(None));
}

#[test]
fn keys_that_go_takes_for_one_are_duplicates() {
    for body in [
        r#"{"model":"a","model":"b"}"#,
        r#"{"model":"a","MODEL":"b"}"#,
        r#"{"model":"a","\u004dodel":"b"}"#,
        r#"{"model":"a","model":null}"#,
        r#"{"model":null,"Model":"b"}"#,
        r#"{"options":{},"OPTIONS":{}}"#,
        r#"{"keep_alive":0,"\u212aeep_alive":1}"#,
        "{\"keep_alive\":0,\"\u{212A}eep_alive\":1}",
        "{\"stream\":true,\"\u{017F}tream\":false}",
    ] {
        assert_eq!(model(body), Err(BadJson::DuplicateKey), "{body}");
    }
}

#[test]
fn the_folded_stream_flag_is_the_stream_flag() {
    assert_eq!(scan("{\"\u{017F}TREAM\":false}".as_bytes()).unwrap().stream, Some(false));
    assert_eq!(scan(br#"{"stream":null}"#).unwrap().stream, None);
}

#[test]
fn values_of_the_wrong_type_are_refused() {
    for value in ["1", "[]", "{}", "true", "\"x\" "] {
        let body = format!(r#"{{"stream":{value}}}"#);
        assert_eq!(scan(body.as_bytes()).is_ok(), value == "true", "{body}");
    }
    for value in ["1", "[]", "{}", "true"] {
        let body = format!(r#"{{"model":{value}}}"#);
        assert_eq!(model(&body), Err(BadJson::WrongType { key: "model", wanted: "a string" }));
    }
}

#[test]
fn only_one_json_object_and_nothing_after_it_is_a_body() {
    for body in ["", " null", "[]", "\"x\"", "1", "\u{feff}{}"] {
        assert_eq!(model(body), Err(BadJson::NotAnObject), "{body:?}");
    }
    for body in [r#"{"model":"a"}{"model":"b"}"#, "{} x", "{}\0", "{},"] {
        assert!(matches!(model(body), Err(BadJson::Trailing { .. })), "{body:?}");
    }
    assert_eq!(model("{} \r\n\t"), Ok(None));
}

#[test]
fn what_is_not_json_is_refused() {
    for body in [
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":+1}",
        "{\"a\":1e}",
        "{\"a\":NaN}",
        "{\"a\":nul}",
        "{\"a\":[1,]}",
        "{\"a\":[1}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":1}//c",
        "{/**/}",
        "{\"a\":tru",
        "{\"a\":\"\\u12",
        "{\"a\" \"b\"}",
    ] {
        assert!(model(body).is_err(), "{body:?}");
    }
}

#[test]
fn text_that_parsers_mend_differently_is_refused() {
    assert_eq!(scan(b"{\"a\":\"\xff\"}"), Err(BadJson::NotUtf8));
    assert_eq!(scan(b"{\"a\":\"\xc0\xaf\"}"), Err(BadJson::NotUtf8));
    for lone in [r"\ud800", r"\udc00", r"\ud800\ud800", r"\ud800x", r"\ud800\n"] {
        let body = format!("{{\"a\":\"{lone}\"}}");
        assert!(matches!(model(&body), Err(BadJson::LoneSurrogate { .. })), "{body}");
    }
}

#[test]
fn depth_keys_and_numbers_are_bounded() {
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
    assert_eq!(model(&nested(64)), Ok(None));
    assert_eq!(model(&nested(65)), Err(BadJson::TooDeep));
    assert_eq!(model(&format!("{{\"a\":{}", "{\"a\":".repeat(100_000))), Err(BadJson::TooDeep));
    let keys = |count: usize| (0..count).map(|i| format!("\"k{i}\":0")).collect::<Vec<_>>().join(",");
    assert_eq!(model(&format!("{{{}}}", keys(256))), Ok(None));
    assert_eq!(model(&format!("{{{}}}", keys(257))), Err(BadJson::TooManyKeys));
    assert_eq!(model(&format!("{{\"a\":{}}}", "1".repeat(129))), Err(BadJson::LongNumber));
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no infinity", |f| f.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn bodies() -> impl Strategy<Value = (Map<String, Value>, bool)> {
    let others = prop::collection::btree_map("x_[a-z0-9]{1,8}", values(), 0..6);
    (others, prop::option::of(any::<String>()), any::<bool>()).prop_map(|(others, model, pretty)| {
        let mut map: Map<String, Value> = others.into_iter().collect();
        if let Some(model) = model {
            map.insert("model".into(), model.into());
        }
        (map, pretty)
    })
}

proptest! {
    #[test]
    fn a_valid_body_is_read_as_serde_reads_it((body, pretty) in bodies()) {
        let text = if pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) }.unwrap();
        let expected = body.get("model").and_then(Value::as_str);
        let facts = scan(text.as_bytes()).unwrap();
        prop_assert_eq!(facts.model.as_deref(), expected);
    }

    #[test]
    fn no_cut_of_a_valid_body_is_one((body, _) in bodies(), cut in any::<prop::sample::Index>()) {
        let text = serde_json::to_vec(&body).unwrap();
        prop_assert!(scan(&text[..cut.index(text.len())]).is_err());
    }

    #[test]
    fn whatever_passes_is_json_for_serde_too(body in prop::collection::vec(any::<u8>(), 0..60), (valid, _) in bodies(), at in any::<prop::sample::Index>()) {
        let mut mutated = serde_json::to_vec(&valid).unwrap();
        let place = at.index(mutated.len());
        mutated.splice(place..place, body.iter().copied().take(2));
        for bytes in [&body, &mutated] {
            if scan(bytes).is_ok() {
                prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok());
            }
        }
    }
}
