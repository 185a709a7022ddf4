use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::proxy::inspect::knobs_of;

fn edited(dialect: Dialect, body: &str, most: Option<u64>) -> (String, Plan) {
    let plan = plan(dialect, body.contains("true"), &knobs_of(body), most);
    let mut text = body.to_owned();
    for edit in plan.edits.iter().rev() {
        text.replace_range(edit.at..edit.at + edit.length, &edit.text);
    }
    (text, plan)
}

fn asks(body: &str) -> (String, bool) {
    let (text, plan) = edited(Dialect::ChatCompletions, body, None);
    (text, plan.hides_usage)
}

#[test]
fn the_counts_are_asked_for_in_place() {
    for (body, sent) in [
        (r#"{"stream":true}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        (
            r#" { "stream" : true, "stream_options" : null , "x":1} "#,
            r#" { "stream" : true, "stream_options" : {"include_usage":true} , "x":1} "#,
        ),
        (
            r#"{"stream":true,"stream_options":{ }}"#,
            r#"{"stream":true,"stream_options":{ "include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"Stream_Options":{"INCLUDE_USAGE":false} }"#,
            r#"{"stream":true,"Stream_Options":{"INCLUDE_USAGE":false,"include_usage":true} }"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true,"include_usage":false,"include_usage":true}}"#,
        ),
        (
            r#"{"messages":[{"stream_options":{"include_usage":true}}],"stream":true}"#,
            r#"{"messages":[{"stream_options":{"include_usage":true}}],"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
    ] {
        assert_eq!(asks(body), (sent.to_owned(), true), "{body}");
    }
}

#[test]
fn who_asks_for_the_counts_gets_them_and_what_ollama_refuses_stays_as_it_is() {
    for body in [
        r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"stream":true,"STREAM_OPTIONS":{"include_u\u017fage":true}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":false,"include_usage":true,"include_usage":null}}"#,
        r#"{"stream":true,"stream_options":"x"}"#,
        r#"{"stream":true,"stream_options":[true]}"#,
        r#"{"stream":false,"model":"a"}"#,
    ] {
        assert_eq!(asks(body), (body.to_owned(), false), "{body}");
    }
}

#[test]
fn only_streams_of_the_openai_api_have_to_be_asked() {
    for dialect in [Dialect::Chat, Dialect::Generate, Dialect::Responses, Dialect::Messages] {
        let body = r#"{"stream":true}"#;
        assert_eq!(edited(dialect, body, None).0, body, "{dialect:?}");
    }
    assert!(edited(Dialect::Completions, r#"{"stream":true}"#, None).1.hides_usage);
}

#[test]
fn a_cap_is_read_as_ollama_reads_it() {
    use Dialect::{Chat, ChatCompletions, Completions, Messages, Responses};
    for (dialect, body, cap) in [
        (Chat, r#"{"options":{"num_predict":5}}"#, Some(5)),
        (Chat, r#"{"options":{"num_predict":5.9e0}}"#, Some(5)),
        (Chat, r#"{"options":{"num_predict":9,"num\u005fpredict":7}}"#, Some(7)),
        (Chat, r#"{"options":{"NUM_PREDICT":5}}"#, None),
        (Chat, r#"{"options":{"num_predict":0}}"#, None),
        (Chat, r#"{"options":{"num_predict":-1}}"#, None),
        (Chat, r#"{"options":{"num_predict":5,"num_predict":null}}"#, None),
        (Chat, r#"{"options":{"num_predict":"5"}}"#, None),
        (Chat, r#"{"max_tokens":5}"#, None),
        (ChatCompletions, r#"{"MAX_TOKENS":5}"#, Some(5)),
        (ChatCompletions, r#"{"max_tokens":0}"#, None),
        (ChatCompletions, r#"{"max_tokens":5.0}"#, None),
        (ChatCompletions, r#"{"max_tokens":null,"options":{"num_predict":5}}"#, None),
        (ChatCompletions, r#"{"max_completion_tokens":5}"#, None),
        (Completions, r#"{"max_tokens":99999999999999999999}"#, None),
        (Responses, r#"{"max_output_tokens":5}"#, Some(5)),
        (Messages, r#"{"max_tokens":5}"#, Some(5)),
    ] {
        let (text, plan) = edited(dialect, body, None);
        assert_eq!((text.as_str(), plan.cap), (body, cap), "{body}");
    }
}

#[test]
fn an_output_cap_lowers_what_is_higher_and_bounds_what_is_open() {
    use Dialect::{Chat, ChatCompletions, Completions, Generate, Messages, Responses};
    for (dialect, body, sent, cap) in [
        (Chat, r#"{"a":1}"#, r#"{"a":1,"options":{"num_predict":100}}"#, 100),
        (Chat, r#"{"options":null}"#, r#"{"options":{"num_predict":100}}"#, 100),
        (Generate, r#"{"options":{}}"#, r#"{"options":{"num_predict":100}}"#, 100),
        (
            Generate,
            r#"{"options":{"num_predict":-1}}"#,
            r#"{"options":{"num_predict":-1,"num_predict":100}}"#,
            100,
        ),
        (
            Generate,
            r#"{"options":{"num_predict":101}}"#,
            r#"{"options":{"num_predict":101,"num_predict":100}}"#,
            100,
        ),
        (Generate, r#"{"options":{"num_predict":100}}"#, r#"{"options":{"num_predict":100}}"#, 100),
        (ChatCompletions, r#"{"a":1}"#, r#"{"a":1,"max_tokens":100}"#, 100),
        (ChatCompletions, r#"{"max_tokens": 7}"#, r#"{"max_tokens": 7}"#, 7),
        (ChatCompletions, r#"{"max_tokens":1000,"a":1}"#, r#"{"max_tokens":100,"a":1}"#, 100),
        (ChatCompletions, r#"{"max_tokens":null}"#, r#"{"max_tokens":100}"#, 100),
        (ChatCompletions, r#"{"max_tokens":0}"#, r#"{"max_tokens":100}"#, 100),
        (
            ChatCompletions,
            r#"{"max_completion_tokens":7}"#,
            r#"{"max_completion_tokens":7,"max_tokens":7}"#,
            7,
        ),
        (
            ChatCompletions,
            r#"{"max_completion_tokens":700,"max_tokens":900}"#,
            r#"{"max_completion_tokens":100,"max_tokens":100}"#,
            100,
        ),
        (Completions, r#"{"max_tokens":-5}"#, r#"{"max_tokens":100}"#, 100),
        (Responses, r#"{"a":1}"#, r#"{"a":1,"max_output_tokens":100}"#, 100),
        (Responses, r#"{"max_output_tokens":1000}"#, r#"{"max_output_tokens":100}"#, 100),
        (Messages, r#"{"max_tokens":1000}"#, r#"{"max_tokens":100}"#, 100),
    ] {
        let (text, plan) = edited(dialect, body, Some(100));
        assert_eq!((text.as_str(), plan.cap), (sent, Some(cap)), "{body}");
    }
}

#[test]
fn what_ollama_would_refuse_is_left_for_it_to_refuse() {
    use Dialect::{Chat, ChatCompletions, Embed, Messages};
    for (dialect, body) in [
        (Chat, r#"{"options":[1]}"#),
        (Chat, r#"{"options":{"num_predict":"x"}}"#),
        (ChatCompletions, r#"{"max_tokens":"x"}"#),
        (ChatCompletions, r#"{"max_tokens":1e9}"#),
        (Messages, r#"{"model":"a"}"#),
        (Messages, r#"{"max_tokens":0}"#),
        (Embed, r#"{"input":"a"}"#),
    ] {
        assert_eq!(edited(dialect, body, Some(100)).0, body);
    }
}

/// Members that a client may send, of which some are what is edited.
fn members() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
    let member = prop_oneof![
        Just(("stream_options", json!(null))),
        Just(("stream_options", json!({}))),
        any::<bool>().prop_map(|on| ("stream_options", json!({ "include_usage": on, "x": [1] }))),
        any::<i32>().prop_map(|n| ("max_tokens", json!(n))),
        any::<i32>().prop_map(|n| ("max_completion_tokens", json!(n))),
        Just(("max_tokens", json!(null))),
        any::<String>().prop_map(|text| ("messages", json!([{ "content": text }]))),
        Just(("options", json!({ "num_predict": 3 }))),
    ];
    prop::collection::vec(member, 0..6).prop_map(|mut members| {
        members.sort_by_key(|(key, _)| *key);
        members.dedup_by_key(|(key, _)| *key);
        members
    })
}

proptest! {
    #[test]
    fn an_edited_body_is_the_body_but_for_what_was_edited(members in members(), pretty in any::<bool>(), most in prop::option::of(1u64..100)) {
        let mut body = json!({ "model": "a", "stream": true });
        for (key, value) in members {
            body[key] = value;
        }
        let text = if pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) }.unwrap();
        let (sent, plan) = edited(Dialect::ChatCompletions, &text, most);
        let sent: Value = serde_json::from_str(&sent).unwrap();
        prop_assert_eq!(&sent["stream_options"]["include_usage"], &json!(true));
        prop_assert_eq!(plan.hides_usage, body["stream_options"]["include_usage"] != json!(true));
        let asked = |body: &Value, key: &str| body[key].as_u64().filter(|cap| *cap > 0);
        let heeded = most.map(|most| [asked(&body, "max_tokens"), asked(&body, "max_completion_tokens")].into_iter().flatten().fold(most, u64::min));
        prop_assert_eq!(asked(&sent, "max_tokens"), heeded.or_else(|| asked(&body, "max_tokens")));
        prop_assert_eq!(plan.cap, asked(&sent, "max_tokens"));
        for (key, value) in body.as_object().unwrap() {
            if !["stream_options", "max_tokens", "max_completion_tokens"].contains(&key.as_str()) {
                prop_assert_eq!(&sent[key], value);
            }
        }
    }
}
