use proptest::prelude::*;

use super::*;

macro_rules! recorded {
    ($file:literal) => {
        include_str!(concat!("../../../fixtures/ollama-0.32.15/", $file))
    };
}

/// Answers of a real Ollama of three tokens, and how long it counted their prompts.
const ANSWERS: [(Dialect, bool, &str, u64); 12] = [
    (Dialect::Chat, true, recorded!("chat.ndjson"), 29),
    (Dialect::Chat, false, recorded!("chat.json"), 29),
    (Dialect::Generate, true, recorded!("generate.ndjson"), 29),
    (Dialect::Generate, false, recorded!("generate.json"), 29),
    (Dialect::ChatCompletions, true, recorded!("chat_completions_usage.sse"), 29),
    (Dialect::ChatCompletions, false, recorded!("chat_completions.json"), 29),
    (Dialect::Completions, true, recorded!("completions_usage.sse"), 29),
    (Dialect::Completions, false, recorded!("completions.json"), 29),
    (Dialect::Messages, true, recorded!("messages.sse"), 29),
    (Dialect::Messages, false, recorded!("messages.json"), 29),
    (Dialect::Responses, true, recorded!("responses.sse"), 22),
    (Dialect::Responses, false, recorded!("responses.json"), 22),
];

fn heard(dialect: Dialect, stream: bool, pieces: &[&[u8]]) -> Heard {
    let mut meter = Meter::new(dialect, stream);
    for piece in pieces {
        meter.see(piece);
    }
    *meter.heard()
}

fn counts(dialect: Dialect, stream: bool, text: &str) -> (Option<u64>, Option<u64>, u64) {
    let heard = heard(dialect, stream, &[text.as_bytes()]);
    (heard.input, heard.output, heard.chunks)
}

#[test]
fn ollamas_own_counts_are_read_from_every_answer() {
    for (dialect, stream, text, prompt) in ANSWERS {
        let (input, output, chunks) = counts(dialect, stream, text);
        assert_eq!((input, output), (Some(prompt), Some(3)), "{dialect:?} {stream}");
        assert!(!stream || chunks == 3, "{dialect:?} {chunks}");
        assert!(!heard(dialect, stream, &[text.as_bytes()]).failed, "{dialect:?} {stream}");
    }
}

#[test]
fn without_counts_chunks_are_counted() {
    for (dialect, text) in [
        (Dialect::ChatCompletions, recorded!("chat_completions.sse")),
        (Dialect::Completions, recorded!("completions.sse")),
    ] {
        assert_eq!(counts(dialect, true, text), (None, None, 3), "{dialect:?}");
    }
}

#[test]
fn a_stream_that_was_cut_has_told_its_tokens_so_far() {
    for (dialect, text, begins) in [
        (Dialect::Chat, recorded!("chat.ndjson"), "\"content\":\"c\""),
        (Dialect::ChatCompletions, recorded!("chat_completions_usage.sse"), "\"content\":\"c\""),
        (Dialect::Completions, recorded!("completions_usage.sse"), "\"text\":\"c\""),
        (Dialect::Messages, recorded!("messages.sse"), "\"text\":\"c\""),
        (Dialect::Responses, recorded!("responses.sse"), "\"delta\":\"c\""),
    ] {
        let cut = text.split(begins).next().unwrap();
        assert_eq!(counts(dialect, true, cut), (None, None, 2), "{dialect:?}");
    }
}

#[test]
fn thoughts_and_calls_of_tools_are_tokens_too() {
    for (dialect, line) in [
        (Dialect::Chat, r#"{"message":{"role":"assistant","content":"","thinking":"hm"},"done":false}"#),
        (
            Dialect::Chat,
            r#"{"message":{"content":"","tool_calls":[{"function":{"name":"f","arguments":{}}}]},"done":false}"#,
        ),
        (Dialect::Generate, r#"{"response":"","thinking":"hm","done":false}"#),
        (Dialect::ChatCompletions, r#"data: {"choices":[{"delta":{"content":"","reasoning":"hm"}}]}"#),
        (Dialect::ChatCompletions, r#"data: {"choices":[{"delta":{"tool_calls":[{"id":"x"}]}}]}"#),
        (
            Dialect::Messages,
            r#"data: {"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"hm"}}"#,
        ),
        (
            Dialect::Messages,
            r#"data: {"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
        ),
        (Dialect::Responses, r#"data: {"type":"response.reasoning_summary_text.delta","delta":"hm"}"#),
    ] {
        assert_eq!(counts(dialect, true, &format!("{line}\n")), (None, None, 1), "{line}");
    }
}

#[test]
fn what_has_no_content_is_no_token() {
    for (dialect, line) in [
        (Dialect::Chat, r#"{"message":{"role":"assistant","content":""},"done":false}"#),
        (Dialect::Chat, r#"{"message":{"role":"assistant","content":"","tool_calls":[]},"done":false}"#),
        (Dialect::ChatCompletions, r#"data: {"choices":[{"delta":{"role":"assistant","content":""}}]}"#),
        (Dialect::ChatCompletions, "data: [DONE]"),
        (
            Dialect::Messages,
            r#"data: {"type":"message_start","message":{"content":[],"usage":{"input_tokens":4}}}"#,
        ),
        (
            Dialect::Messages,
            r#"data: {"type":"content_block_start","content_block":{"type":"text","text":""}}"#,
        ),
        (Dialect::Messages, r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#),
        (Dialect::Responses, r#"data: {"type":"response.output_text.done","text":"all of it"}"#),
    ] {
        assert_eq!(counts(dialect, true, &format!("{line}\n")), (None, None, 0), "{line}");
    }
}

/// A model that says the words of a last line, and a client that hopes it will.
#[test]
fn a_models_words_are_no_counts() {
    let words =
        r#"\"eval_count\":1,\"usage\":{\"completion_tokens\":1}\ndata: {\"usage\":{\"prompt_tokens\":1}}"#;
    for (dialect, line) in [
        (Dialect::Chat, format!(r#"{{"message":{{"content":"{words}"}},"done":false}}"#)),
        (Dialect::ChatCompletions, format!(r#"data: {{"choices":[{{"delta":{{"content":"{words}"}}}}]}}"#)),
        (
            Dialect::Chat,
            r#"{"message":{"tool_calls":[{"function":{"arguments":{"eval_count":1,"usage":{"prompt_tokens":1}}}}]}}"#
                .to_owned(),
        ),
    ] {
        assert_eq!(counts(dialect, true, &line).0, None, "{line}");
        assert_eq!(counts(dialect, true, &line).1, None, "{line}");
    }
}

#[test]
fn embeddings_tell_what_they_read() {
    let native =
        r#"{"model":"b","embeddings":[[0.6,-0.2],[1e-3]],"total_duration":17609965,"prompt_eval_count":7}"#;
    assert_eq!(counts(Dialect::Embed, false, native), (Some(7), None, 0));
    let openai = r#"{"object":"list","data":[{"embedding":[0.6],"index":0}],"usage":{"prompt_tokens":7,"total_tokens":7}}"#;
    assert_eq!(counts(Dialect::OpenAiEmbeddings, false, openai), (Some(7), None, 0));
    assert_eq!(counts(Dialect::Embeddings, false, r#"{"embedding":[0.6]}"#), (None, None, 0));
}

#[test]
fn tokens_from_the_cache_are_told_apart() {
    for (dialect, stream, text) in [
        (
            Dialect::Chat,
            true,
            r#"{"done":true,"prompt_eval_count":100,"prompt_eval_cached_count":60,"eval_count":1}"#,
        ),
        (
            Dialect::ChatCompletions,
            true,
            r#"data: {"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":60}}}"#,
        ),
        (
            Dialect::Responses,
            true,
            r#"data: {"response":{"usage":{"input_tokens":100,"input_tokens_details":{"cached_tokens":60},"output_tokens":1}}}"#,
        ),
    ] {
        let heard = heard(dialect, stream, &[text.as_bytes(), b"\n"]);
        assert_eq!((heard.input, heard.cached, heard.output), (Some(100), 60, Some(1)), "{dialect:?}");
    }
}

#[test]
fn an_answer_without_a_prompt_tells_nothing_and_an_error_says_so() {
    let load = heard(Dialect::Generate, false, &[recorded!("load.json").as_bytes()]);
    assert!(load.is_empty() && !load.failed);
    for (dialect, line) in [
        (Dialect::Chat, r#"{"error":"an error was encountered"}"#),
        (Dialect::ChatCompletions, r#"data: {"error":{"message":"x"}}"#),
        (Dialect::Messages, r#"data: {"type":"error","error":{"message":"x"}}"#),
    ] {
        assert!(heard(dialect, true, &[line.as_bytes(), b"\n"]).failed, "{line}");
    }
    assert!(!heard(Dialect::Responses, false, &[recorded!("responses.json").as_bytes()]).failed);
}

#[test]
fn a_line_of_megabytes_is_counted_like_any_other() {
    let context = vec!["123456"; 200_000].join(",");
    let line = format!(
        r#"{{"response":"","done":true,"context":[{context}],"prompt_eval_count":5,"eval_count":7}}"#
    );
    assert_eq!(counts(Dialect::Generate, true, &line), (Some(5), Some(7), 0));
}

proptest! {
    #[test]
    fn any_split_into_frames_gives_the_same_counts(
        which in 0..ANSWERS.len(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let (dialect, stream, text, _) = ANSWERS[which];
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        places.extend([0, text.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
        prop_assert_eq!(heard(dialect, stream, &pieces), heard(dialect, stream, &[text.as_bytes()]));
    }
}
