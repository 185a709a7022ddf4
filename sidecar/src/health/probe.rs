//! The prober: asks Ollama for its version, again and again.
//!
//! `/api/version` is the cheapest question there is; the model list is read from disk at each call. A connection of its
//! own each time: a kept one says nothing about a listener that has gone.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::{Health, Sign, Upstream};
use crate::config::HealthSettings;

/// However short an interval is asked for.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// Probes until it is dropped.
pub async fn watch(upstream: SocketAddr, settings: HealthSettings, health: Arc<Health>) {
    let mut silence = Silence::default();
    let mut first = true;
    loop {
        let began = Instant::now();
        let seen = look(upstream, settings.probe_timeout).await;
        health.probes.took(Instant::now().saturating_duration_since(began));
        if first && let Err(error) = &seen {
            tracing::warn!("{}", trouble(upstream, error));
        }
        first = false;
        let sign = unless_heard(sign(&seen), health.take_heard());
        let anew = matches!(seen, Err(AskError::Refused | AskError::Http(_)));
        health.saw(sign);
        health.set_wedged(silence.too_long(&settings, sign, anew, Instant::now()));
        sleep(interval(&settings, health.upstream())).await;
    }
}

/// Four times as often while Ollama is not up: that is when somebody waits for it.
fn interval(settings: &HealthSettings, upstream: Upstream) -> Duration {
    let often = if upstream == Upstream::Up { 1 } else { 4 };
    (settings.probe_interval / often).max(SHORTEST_INTERVAL)
}

/// A probe that failed while real requests were being answered says how busy Ollama is, not that it is dead.
fn unless_heard(sign: Sign, heard: bool) -> Sign {
    if sign == Sign::NoAnswer && heard { Sign::Answer } else { sign }
}

/// Since when connections have been accepted and none answered. One that is refused or breaks ends it: the process has
/// gone, and what comes next is a new start, which has more time.
#[derive(Debug, Default)]
struct Silence {
    since: Option<Instant>,
    /// It has answered in this life.
    was_up: bool,
}

impl Silence {
    fn too_long(&mut self, settings: &HealthSettings, sign: Sign, anew: bool, now: Instant) -> bool {
        if anew {
            *self = Self::default();
            return false;
        }
        if sign == Sign::Answer {
            *self = Self { since: None, was_up: true };
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let bound = if self.was_up { settings.hung_after } else { settings.wedged_after };
        now.saturating_duration_since(since) >= bound
    }
}

/// Asks once.
pub async fn probe(upstream: SocketAddr, within: Duration) -> Sign {
    sign(&look(upstream, within).await)
}

async fn look(upstream: SocketAddr, within: Duration) -> Result<(), AskError> {
    let status = timeout(within, ask(upstream)).await.map_err(|_| AskError::TooSlow(within))??;
    if status.is_success() { Ok(()) } else { Err(AskError::Status(status)) }
}

fn sign(seen: &Result<(), AskError>) -> Sign {
    match seen {
        Ok(()) => Sign::Answer,
        Err(AskError::Refused) => Sign::Refused,
        Err(_) => Sign::NoAnswer,
    }
}

/// What to tell a person who has just started this sidecar in front of nothing.
fn trouble(upstream: SocketAddr, error: &AskError) -> String {
    format!(
        "{error} at http://{upstream}: is Ollama running there? Start it with OLLAMA_HOST={upstream}, or name its address with --upstream"
    )
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("connection refused")]
    Refused,
    #[error("cannot connect ({0})")]
    Connect(io::Error),
    #[error("no answer within {0:?}")]
    TooSlow(Duration),
    #[error("status {0} instead of Ollama's version")]
    Status(http::StatusCode),
    #[error("no answer ({0})")]
    Http(#[from] hyper::Error),
    #[error("the question cannot be put ({0})")]
    Request(#[from] http::Error),
}

async fn ask(upstream: SocketAddr) -> Result<http::StatusCode, AskError> {
    let stream = TcpStream::connect(upstream).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => AskError::Refused,
        _ => AskError::Connect(error),
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/api/version").header("host", "localhost").body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request);
    tokio::pin!(connection, answer);
    // Both on this task: nothing is left behind when the deadline drops it. A connection that ends may have brought the
    // answer all the same.
    let response = tokio::select! {
        response = &mut answer => response?,
        _ = &mut connection => answer.await?,
    };
    Ok(response.status())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn answering(text: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 512];
                let _ = stream.read(&mut head).await;
                stream.write_all(text.as_bytes()).await.unwrap();
                if text.is_empty() {
                    std::future::pending::<()>().await;
                }
            }
        });
        address
    }

    const SOON: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn a_probe_tells_an_answer_from_silence_from_nobody() {
        let up = answering("HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n{\"version\":\"0.32.15\"}").await;
        assert_eq!(probe(up, SOON).await, Sign::Answer);
        let sick = answering("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(probe(sick, SOON).await, Sign::NoAnswer);
        assert_eq!(probe(answering("").await, SOON).await, Sign::NoAnswer);
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(probe(gone, SOON).await, Sign::Refused);
    }

    #[tokio::test]
    async fn whoever_starts_in_front_of_nothing_is_told_where_and_why() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let told = trouble(gone, &look(gone, SOON).await.unwrap_err());
        assert!(told.starts_with(&format!("connection refused at http://{gone}: ")), "{told}");
        assert!(told.contains(&format!("OLLAMA_HOST={gone}")), "{told}");
        let silent = answering("").await;
        let told = trouble(silent, &look(silent, SOON).await.unwrap_err());
        assert!(told.starts_with("no answer within 300ms at "), "{told}");
    }

    const SETTINGS: HealthSettings = HealthSettings {
        probe_interval: Duration::from_secs(2),
        probe_timeout: Duration::from_secs(1),
        hung_after: Duration::from_secs(15),
        wedged_after: Duration::from_secs(90),
    };

    /// Whether the last of these signs, each at its second, makes a silence too long. A life ends with `Refused`.
    fn too_long(signs: &[(u64, Sign)]) -> bool {
        let (mut silence, begun) = (Silence::default(), Instant::now());
        let judge = |(at, sign): &(u64, Sign)| {
            let now = begun + Duration::from_secs(*at);
            silence.too_long(&SETTINGS, *sign, *sign == Sign::Refused, now)
        };
        signs.iter().map(judge).last().unwrap_or_default()
    }

    #[test]
    fn who_answered_before_may_be_silent_for_seconds_and_who_starts_for_as_long_as_that_takes() {
        use Sign::{Answer, NoAnswer, Refused};
        for (signs, wedged) in [
            (&[(0, NoAnswer), (89, NoAnswer)][..], false),
            (&[(0, NoAnswer), (90, NoAnswer)], true),
            (&[(0, Answer), (2, NoAnswer), (16, NoAnswer)], false),
            (&[(0, Answer), (2, NoAnswer), (17, NoAnswer)], true),
            (&[(0, Answer), (2, NoAnswer), (17, NoAnswer), (18, Answer)], false),
            (&[(0, Answer), (2, NoAnswer), (10, Answer), (12, NoAnswer), (26, NoAnswer)], false),
            // The process has gone: what comes is a start, and may take its time.
            (&[(0, Answer), (2, Refused), (3, NoAnswer), (92, NoAnswer)], false),
            (&[(0, Answer), (2, NoAnswer), (18, Refused), (19, NoAnswer), (108, NoAnswer)], false),
            (&[(0, Answer), (2, Refused), (3, NoAnswer), (93, NoAnswer)], true),
            (&[(0, Answer), (2, Refused)], false),
        ] {
            assert_eq!(too_long(signs), wedged, "{signs:?}");
        }
    }

    #[test]
    fn a_probe_that_fails_while_streams_go_on_is_no_failure_and_a_refused_one_is() {
        assert_eq!(unless_heard(Sign::NoAnswer, true), Sign::Answer);
        assert_eq!(unless_heard(Sign::NoAnswer, false), Sign::NoAnswer);
        assert_eq!(unless_heard(Sign::Refused, true), Sign::Refused);
    }

    #[test]
    fn ollama_is_asked_more_often_while_it_is_not_up() {
        assert_eq!(interval(&SETTINGS, Upstream::Up), Duration::from_secs(2));
        assert_eq!(interval(&SETTINGS, Upstream::Down), Duration::from_millis(500));
    }
}
