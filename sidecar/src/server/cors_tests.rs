use super::*;

const PAGE: &str = "Origin: http://localhost:3000\r\n";
const NAMED: &str = "access-control-allow-origin: http://localhost:3000\r\n";
const ASKS: &str = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n";

fn options(path: &str, lines: &str) -> String {
    format!("OPTIONS {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n")
}

#[tokio::test]
async fn a_preflight_is_answered_without_limit_slot_or_ollama() {
    let world = world_with(1, |settings| settings.upstream = ([127, 0, 0, 1], 1).into()).await;
    world.core.health.upstream_refused();
    assert_eq!(status(&world.post("/api/chat", r#"{"model":"tiny"}"#).await), 503);
    for path in ["/api/chat", "/v1/chat/completions", "/v1/models/tiny", "/api/tags", "/corral/v1/limits"] {
        let lines = format!("{PAGE}{ASKS}");
        for _ in 0..30 {
            let answer = world.raw(&options(path, &lines)).await;
            assert_eq!(status(&answer), 204, "{path} {answer}");
            assert!(answer.contains(NAMED) && answer.contains("vary: Origin\r\n"), "{answer}");
            assert!(answer.contains("access-control-allow-methods: GET, HEAD, POST\r\n"), "{answer}");
            assert!(answer.contains("access-control-max-age: 43200\r\n"), "{answer}");
            assert!(
                answer.contains("Authorization, Content-Type") && answer.contains("X-Api-Key"),
                "{answer}"
            );
            assert!(answer.ends_with("\r\n\r\n") && !answer.contains("ratelimit"), "{answer}");
        }
    }
    let limits = world.raw(&get("/corral/v1/limits", "")).await;
    assert!(limits.contains("\"remaining\":1,"), "{limits}");
}

#[tokio::test]
async fn a_preflight_for_what_is_closed_or_for_a_foreign_page_fails() {
    let world = world().await;
    let asks = format!("{PAGE}{ASKS}");
    let foreign = format!("Origin: https://evil.example\r\n{ASKS}");
    for (path, lines, expected) in [
        ("/api/pull", asks.as_str(), 403),
        ("/api/nope", &asks, 404),
        ("/api/chat", PAGE, 405),
        ("/api/chat", ASKS, 405),
        ("/api/chat", &foreign, 403),
    ] {
        let answer = world.raw(&options(path, lines)).await;
        assert_eq!(status(&answer), expected, "{path} {lines} {answer}");
        assert_eq!(answer.contains(NAMED), lines.contains(PAGE), "{answer}");
        assert!(!answer.contains("access-control-allow-methods"), "{answer}");
    }
}

#[tokio::test]
async fn an_allowed_page_may_read_every_answer_and_when_to_come_back() {
    let world = world_with(1, |_| ()).await;
    let lines = format!("Connection: close\r\n{PAGE}");
    for expected in [200, 429] {
        let answer = world.raw(&post("/api/chat", &lines, r#"{"model":"whole"}"#)).await;
        assert_eq!(status(&answer), expected, "{answer}");
        assert!(answer.contains(NAMED) && answer.contains("vary: Origin\r\n"), "{answer}");
        let exposed =
            answer.lines().find(|line| line.starts_with("access-control-expose-headers: ")).unwrap();
        for name in answer.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name) {
            let ours = ["x-", "ratelimit", "retry-"].iter().any(|prefix| name.starts_with(prefix));
            assert!(!ours || exposed.to_ascii_lowercase().contains(name), "{name}: {exposed}");
        }
    }
    let limits = world.raw(&get("/corral/v1/limits", PAGE)).await;
    assert!(status(&limits) == 200 && limits.contains(NAMED), "{limits}");
}

#[tokio::test]
async fn who_is_no_page_from_elsewhere_gets_no_leave() {
    let world = world().await;
    for (lines, expected, varies) in [
        ("", 200, false),
        ("Origin: http://localhost\r\n", 200, true),
        ("Origin: https://evil.example\r\n", 403, true),
    ] {
        let answer = world.raw(&get("/api/version", lines)).await;
        assert_eq!(status(&answer), expected, "{answer}");
        assert_eq!(answer.contains("vary: Origin\r\n"), varies, "{answer}");
        assert!(!answer.contains("access-control-"), "{answer}");
    }
}

fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n")
}
