//! The scripted Ollama answers as the recorded real one did: status, media type, and the shape of the body with what
//! differs from run to run masked.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::client::{Answer, Client};
use corral_tests::ollama::{Fault, Outcome, Pace, ScriptedOllama, Settings};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

#[derive(Deserialize)]
struct Exchange {
    name: String,
    request: Asked,
    #[serde(default)]
    crash_after: Option<usize>,
    #[serde(default)]
    compare: Compare,
    answer: Expected,
}

#[derive(Deserialize)]
struct Asked {
    target: String,
    body: Value,
}

/// How much of a stream was recorded.
#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Compare {
    #[default]
    Whole,
    Tail,
    Ends,
}

#[derive(Deserialize)]
struct Expected {
    status: u16,
    r#type: String,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    json: Option<Value>,
    text: Option<String>,
    events: Option<Vec<Value>>,
    lines: Option<Vec<Value>>,
}

/// Keys whose values differ from run to run, or follow from a tokenizer that nobody has here.
const MASKED: &[&str] = &[
    "completed_at",
    "created",
    "created_at",
    "digest",
    "eval_duration",
    "expires_at",
    "id",
    "input_tokens",
    "item_id",
    "load_duration",
    "modified_at",
    "prompt_eval_count",
    "prompt_eval_duration",
    "prompt_tokens",
    "request_id",
    "size",
    "total_duration",
    "total_tokens",
];

fn masked(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, inner)| {
                let known = if MASKED.contains(&key.as_str()) { kind(inner) } else { masked(inner) };
                (key.clone(), known)
            })
            .collect(),
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_number) => "numbers".into(),
        Value::Array(items) => items.iter().map(masked).collect(),
        other => other.clone(),
    }
}

fn kind(value: &Value) -> Value {
    match value {
        Value::Number(_) => "a number".into(),
        Value::String(_) => "a text".into(),
        other => other.clone(),
    }
}

fn events(text: &str) -> Vec<Value> {
    let event = |block: &str| {
        let fields = block.lines().map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), serde_json::from_str::<Value>(value).unwrap_or_else(|_| value.into()))
        });
        fields.collect()
    };
    text.split("\n\n").filter(|block| !block.is_empty()).map(event).collect()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn assert_same(name: &str, compare: Compare, found: &[Value], expected: &[Value]) {
    let found: Vec<Value> = match compare {
        Compare::Whole => found.to_vec(),
        Compare::Tail => found[found.len().saturating_sub(expected.len())..].to_vec(),
        Compare::Ends => vec![found[0].clone(), found[found.len() - 1].clone()],
    };
    let found: Vec<Value> = found.iter().map(masked).collect();
    let expected: Vec<Value> = expected.iter().map(masked).collect();
    assert_eq!(found, expected, "{name}");
}

fn check(exchange: &Exchange, answer: &Answer) {
    let (name, expected) = (&exchange.name, &exchange.answer);
    assert_eq!(answer.status.as_u16(), expected.status, "{name}: {}", answer.text());
    assert_eq!(answer.header("content-type"), expected.r#type, "{name}");
    for (header, value) in &expected.headers {
        assert_eq!(answer.header(header), value, "{name}");
    }
    let text = answer.text();
    if let Some(events_expected) = &expected.events {
        assert_same(name, exchange.compare, &events(&text), events_expected);
    } else if let Some(lines_expected) = &expected.lines {
        assert_same(name, exchange.compare, &lines(&text), lines_expected);
    } else if let Some(json_expected) = &expected.json {
        assert_eq!(masked(&answer.json()), masked(json_expected), "{name}");
        // Go's encoder ends with a line feed where the family's middleware writes, and not where gin does.
        let by_middleware = expected.r#type == "application/json";
        assert_eq!(text.ends_with('\n'), by_middleware, "{name}");
    } else {
        assert_eq!(Some(&text), expected.text.as_ref(), "{name}");
    }
}

#[tokio::test]
async fn recorded_exchanges_come_out_the_same() {
    let exchanges: Vec<Exchange> =
        serde_json::from_str(include_str!("../fixtures/ollama-0.32.15/exchanges.json")).unwrap();
    assert!(exchanges.len() > 40);
    let ollama = ScriptedOllama::plain().await.unwrap();
    let client = Client::new(ollama.address());
    for exchange in &exchanges {
        if let Some(after) = exchange.crash_after {
            ollama.fault(Fault::Crash { after });
        }
        let body = match &exchange.request.body {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let body = body.replace("LONG", &"the ".repeat(9000));
        let answer = client.send(Method::POST, &exchange.request.target, body).await.unwrap();
        check(exchange, &answer);
    }
    let record = ollama.record();
    assert_eq!((record.leaked(), record.count(Outcome::Cancelled)), (0, 0));
    assert_eq!(record.load().running, 0);
}

#[derive(Deserialize)]
struct NameRow {
    spelling: String,
    status: u16,
    error: Option<String>,
    endpoint: Option<String>,
}

#[tokio::test]
async fn recorded_spellings_name_the_same_models() {
    let table: Vec<NameRow> =
        serde_json::from_str(include_str!("../fixtures/ollama-0.32.15/names.json")).unwrap();
    let ollama = ScriptedOllama::plain().await.unwrap();
    let client = Client::new(ollama.address());
    for row in table {
        let body = json!({
            "model": row.spelling, "prompt": "hello", "stream": false, "options": { "num_predict": 1 }
        });
        let target = row.endpoint.as_deref().unwrap_or("/api/generate");
        let answer = client.post(target, &body).await.unwrap();
        assert_eq!(answer.status.as_u16(), row.status, "{:?}", row.spelling);
        assert_eq!(answer.json()["error"].as_str(), row.error.as_deref(), "{:?}", row.spelling);
        if row.status == 200 && row.endpoint.is_none() {
            assert_eq!(answer.json()["model"].as_str(), Some(row.spelling.as_str()));
        }
    }
}

#[derive(Deserialize)]
struct Routed {
    method: String,
    target: String,
    status: u16,
    location: Option<String>,
    r#type: Option<String>,
    text: Option<String>,
}

#[tokio::test]
async fn recorded_paths_lead_to_the_same_places() {
    let table: Vec<Routed> =
        serde_json::from_str(include_str!("../fixtures/ollama-0.32.15/routing.json")).unwrap();
    let ollama = ScriptedOllama::plain().await.unwrap();
    let client = Client::new(ollama.address());
    let body = json!({ "model": "tiny", "prompt": "a", "stream": false, "options": { "num_predict": 1 } });
    for row in table {
        let method: Method = row.method.parse().unwrap();
        let answer = client.send(method, &row.target, body.to_string()).await.unwrap();
        let at = format!("{} {}", row.method, row.target);
        assert_eq!(answer.status.as_u16(), row.status, "{at}");
        assert_eq!(answer.header("location"), row.location.unwrap_or_default(), "{at}");
        if let Some(media) = row.r#type {
            assert_eq!(answer.header("content-type"), media, "{at}");
        }
        if let Some(text) = row.text {
            assert_eq!(answer.text(), text, "{at}");
        }
        assert!(answer.header("allow").is_empty(), "{at}");
    }
}

#[derive(Deserialize)]
struct AtTheDoor {
    origin: Option<String>,
    host: Option<String>,
    status: u16,
    #[serde(default)]
    allowed: String,
}

#[tokio::test]
async fn recorded_hosts_and_origins_are_let_in_or_not() {
    let table: Vec<AtTheDoor> =
        serde_json::from_str(include_str!("../fixtures/ollama-0.32.15/door.json")).unwrap();
    let ollama = ScriptedOllama::plain().await.unwrap();
    for row in table {
        let mut client = Client::new(ollama.address());
        for (name, value) in [("origin", &row.origin), ("host", &row.host)] {
            if let Some(value) = value {
                client = client.with(name, value);
            }
        }
        let answer = client.get("/api/version").await.unwrap();
        let at = format!("{:?} {:?}", row.origin, row.host);
        assert_eq!(answer.status.as_u16(), row.status, "{at}");
        assert_eq!(answer.header("access-control-allow-origin"), row.allowed, "{at}");
        assert_eq!(answer.body.is_empty(), row.status == 403, "{at}");
    }
}

#[derive(Deserialize)]
struct Quirk {
    body: String,
    status: u16,
    error: Option<String>,
}

#[tokio::test]
async fn recorded_bodies_are_read_as_go_reads_them() {
    let table: Vec<Quirk> =
        serde_json::from_str(include_str!("../fixtures/ollama-0.32.15/json.json")).unwrap();
    let ollama = ScriptedOllama::plain().await.unwrap();
    let client = Client::new(ollama.address());
    for row in table {
        let answer = client.send(Method::POST, "/api/generate", row.body.clone()).await.unwrap();
        assert_eq!(answer.status.as_u16(), row.status, "{}: {}", row.body, answer.text());
        assert_eq!(answer.json()["error"].as_str(), row.error.as_deref(), "{}", row.body);
    }
}

/// `EmbedHandler` starts a goroutine for each input, all on the one slot of the model: 300 inputs of one request took
/// a second, and whoever came later waited behind all of them.
#[tokio::test(start_paused = true)]
async fn inputs_of_one_request_go_through_one_slot_before_anybody_who_comes_later() {
    let pace = Pace { token: Duration::from_millis(100), ..Pace::default() };
    let ollama =
        ScriptedOllama::start(Settings { num_parallel: 4, pace, ..Settings::default() }).await.unwrap();
    let client = Client::new(ollama.address());
    let started = Instant::now();
    let body = json!({ "model": "tinybert", "input": vec!["a"; 30] });
    let many = async { (client.post("/api/embed", &body).await.unwrap(), started.elapsed()) };
    let one = async {
        sleep(Duration::from_millis(50)).await;
        let body = json!({ "model": "tinybert", "input": "a" });
        (client.post("/api/embed", &body).await.unwrap(), started.elapsed())
    };
    let ((many, took), (one, waited)) = tokio::join!(many, one);
    assert_eq!(
        (many.json()["embeddings"].as_array().unwrap().len(), ollama.record().embedded_inputs()),
        (30, 31)
    );
    let secs = Duration::from_secs;
    assert!(took >= secs(3) && waited >= took, "{took:?} {waited:?}");
    assert_eq!(one.status, http::StatusCode::OK);
    let load = ollama.record().model("tinybert:latest");
    assert_eq!((load.max_running, load.max_waiting), (1, 1));
}

/// `total_duration` counts from the handler's first line, `load_duration` until a runner was found, and the others come
/// from the runner: the wait for a slot lies between, and only there.
#[tokio::test(start_paused = true)]
async fn a_wait_for_a_slot_is_in_the_total_alone() {
    let pace = Pace {
        load: Duration::from_millis(700),
        prompt: Duration::from_millis(200),
        token: Duration::from_millis(100),
        ..Pace::default()
    };
    let ollama = ScriptedOllama::start(Settings { pace, ..Settings::default() }).await.unwrap();
    let client = Client::new(ollama.address());
    let body = json!({ "model": "tiny", "prompt": "a", "stream": false, "options": { "num_predict": 9 } });
    let ask = async || client.post("/api/generate", &body).await.unwrap().json();
    let hidden = |answer: &Value| {
        let of = |name: &str| answer[format!("{name}_duration")].as_i64().unwrap();
        (of("total") - of("load") - of("prompt_eval") - of("eval")) / 1_000_000
    };
    let first = ask().await;
    assert!(first["load_duration"].as_u64().unwrap() >= 700_000_000, "{first}");
    let (one, two, three) = tokio::join!(ask(), ask(), ask());
    let mut waits = [&first, &one, &two, &three].map(hidden);
    waits.sort_unstable();
    // A request takes 1.2 s: the prompt, nine tokens and the end.
    let expected = [0, 0, 1200, 2400];
    for (wait, expected) in waits.iter().zip(expected) {
        assert!((expected - 20..=expected + 20).contains(wait), "{waits:?}");
    }
}
