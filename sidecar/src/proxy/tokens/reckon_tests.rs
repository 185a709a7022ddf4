use corral_limiter::Nanos;
use http::Method;

use super::*;
use crate::proxy::inspect;
use crate::proxy::route;

fn reckoned(path: &str, body: &str, tokens: &TokensDoc) -> Reckoning {
    let uri = path.parse().unwrap();
    let endpoint = route::find(&Method::POST, &uri).unwrap().endpoint;
    let asked = inspect::scan_body(body.as_bytes(), endpoint.action).unwrap();
    Reckoning::of(&asked, endpoint, tokens, (&Learned::default(), Whose::default())).unwrap()
}

fn estimate(path: &str, body: &str) -> (u64, u64) {
    let Usage { input, output, slot } = reckoned(path, body, &TokensDoc::default()).estimate();
    assert_eq!(slot, Nanos::from_secs(1));
    (input, output)
}

#[test]
fn every_endpoint_counts_what_its_model_reads_and_nothing_else() {
    let text = "x".repeat(350);
    let unread = "y".repeat(10_000);
    for (path, member, output) in [
        ("/api/chat", format!(r#""messages":[{{"content":"{text}"}}],"prompt":"{unread}""#), 256),
        ("/api/generate", format!(r#""prompt":"{text}","messages":["{unread}"]"#), 256),
        ("/api/embed", format!(r#""input":"{text}","prompt":"{unread}""#), 0),
        ("/api/embeddings", format!(r#""prompt":"{text}","input":"{unread}""#), 0),
        ("/v1/chat/completions", format!(r#""messages":[{{"content":"{text}"}}],"user":"{unread}""#), 256),
        ("/v1/completions", format!(r#""prompt":"{text}","system":"{unread}""#), 256),
        ("/v1/embeddings", format!(r#""input":["{text}"],"user":"{unread}""#), 0),
        ("/v1/responses", format!(r#""input":"{text}","metadata":{{"a":"{unread}"}}"#), 256),
        ("/v1/messages", format!(r#""system":"{text}","metadata":{{"a":"{unread}"}}"#), 256),
    ] {
        let body = format!(r#"{{"model":"a",{member}}}"#);
        assert_eq!(estimate(path, &body), (100, output), "{path}");
    }
}

#[test]
fn an_image_counts_as_one_and_tokens_count_as_they_are() {
    let image = "A".repeat(100_000);
    let chat = format!(r#"{{"model":"a","messages":[{{"content":"hello y","images":["{image}"]}}]}}"#);
    assert_eq!(estimate("/api/chat", &chat).0, 2 + 768);
    assert_eq!(estimate("/v1/embeddings", r#"{"model":"a","input":[1,2,3]}"#).0, 3);
    assert_eq!(estimate("/v1/embeddings", r#"{"model":"a","input":[[1,2,3],[4,5]]}"#).0, 5);
    assert_eq!(estimate("/api/embed", r#"{"model":"a","input":["1234567","1234567"]}"#).0, 4);
    assert_eq!(estimate("/api/generate", r#"{"model":"a","prompt":"1234567","context":[1,2,3]}"#).0, 5);
    assert_eq!(estimate("/api/chat", r#"{"model":"a","messages":[{"content":[1,2,3]}]}"#).0, 0);
}

#[test]
fn the_answer_is_bounded_by_its_cap_and_by_what_the_context_leaves() {
    let tokens = TokensDoc { context_length: Some(200), ..TokensDoc::default() };
    let estimate = |path: &str, body: &str| {
        let Usage { input, output, .. } = reckoned(path, body, &tokens).estimate();
        (input, output)
    };
    let prompt = "x".repeat(350);
    let body = |more: &str| format!(r#"{{"model":"a","prompt":"{prompt}"{more}}}"#);
    assert_eq!(estimate("/api/generate", &body("")), (100, 100));
    assert_eq!(estimate("/api/generate", &body(r#","options":{"num_predict":30}"#)), (100, 30));
    assert_eq!(estimate("/api/generate", &body(r#","options":{"num_predict":-1}"#)), (100, 100));
    assert_eq!(estimate("/api/generate", &body(r#","options":{"num_ctx":120}"#)), (100, 20));
    assert_eq!(estimate("/api/generate", &body(r#","options":{"num_ctx":50}"#)), (50, 25), "it is cut");
    assert_eq!(estimate("/api/generate", &body(r#","options":{"num_ctx":100000}"#)), (100, 256));
    assert_eq!(estimate("/api/generate", &body(r#","options":{"num_ctx":-1}"#)), (100, 100));
    assert_eq!(estimate("/v1/completions", &body(r#","options":{"num_ctx":50}"#)), (100, 100));
    assert_eq!(estimate("/v1/completions", &body(r#","max_tokens":7"#)), (100, 7));
}

#[test]
fn each_text_of_a_list_to_embed_has_a_context_of_its_own() {
    let tokens = TokensDoc { context_length: Some(50), ..TokensDoc::default() };
    let text = "x".repeat(350);
    let one = format!(r#"{{"model":"a","input":"{text}"}}"#);
    assert_eq!(reckoned("/api/embed", &one, &tokens).estimate().input, 50);
    let three = format!(r#"{{"model":"a","input":["{text}","{text}","{text}"]}}"#);
    assert_eq!(reckoned("/api/embed", &three, &tokens).estimate().input, 150);
}

#[test]
fn the_output_cap_of_the_pool_bounds_the_estimate_too() {
    let tokens = TokensDoc { output_cap: Some(5), ..TokensDoc::default() };
    let reckoned = reckoned("/v1/messages", r#"{"model":"a","max_tokens":100}"#, &tokens);
    assert_eq!((reckoned.estimate().output, reckoned.edits().len()), (5, 1));
}

fn costs(path: &str, body: &str) -> (u64, u64, u64) {
    let reckoned = reckoned(path, body, &TokensDoc::default());
    let millis = |nanos: u64| nanos / 1_000_000;
    let tokens = reckoned.cost(CostModel::Tokens) / TOKEN;
    (millis(reckoned.cost(CostModel::SlotTime)), tokens, millis(reckoned.needs().0))
}

#[test]
fn the_queue_goes_by_the_time_that_a_slot_is_held_or_by_tokens_of_which_an_answers_count_double() {
    let text = "x".repeat(3500);
    let generate = |more: &str| format!(r#"{{"model":"a","prompt":"{text}"{more}}}"#);
    // At 0.5 ms a token of a prompt and 20 ms a token of an answer.
    assert_eq!(
        costs("/api/generate", &generate("")),
        (500 + 5120, 1000 + 512, 500),
        "a stream is of use with its first token"
    );
    assert_eq!(
        costs("/api/generate", &generate(r#","stream":false"#)),
        (5620, 1512, 5620),
        "a whole is of use when it is there"
    );
    assert_eq!(costs("/api/generate", &generate(r#","options":{"num_predict":10}"#)), (700, 1020, 500));
    assert_eq!(costs("/api/embed", &format!(r#"{{"model":"a","input":"{text}"}}"#)), (500, 1000, 500));
}

#[test]
fn what_costs_nothing_costs_a_little() {
    let reckoned = reckoned("/api/embed", r#"{"model":"a"}"#, &TokensDoc::default());
    assert_eq!((reckoned.cost(CostModel::SlotTime), reckoned.cost(CostModel::Tokens)), (1, 1));
}
