//! Watches a stream go by for the mark of its end, and knows what to say when it ends without one.
//!
//! Ollama's compatibility APIs hide a failure in the middle of a stream: the connection simply ends. A client is told
//! by its own API's error event instead.

use bytes::Bytes;
use memchr::memmem;
use serde_json::json;

use super::route::Ending;

/// Enough bytes to find a mark that lies across two frames.
const KEPT: usize = 32;

/// Follows one stream.
#[derive(Debug)]
pub(crate) struct Watch {
    ending: Ending,
    /// The last bytes seen; a stream begins as a line does.
    tail: Vec<u8>,
    seen: bool,
}

/// How a stream ended, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Ollama closed it in order.
    Closed,
    /// It broke.
    Broken,
    /// This sidecar ended it: the time of its drain was over.
    Drained,
    /// This sidecar ended it: the runner has stopped.
    Stalled,
}

/// What becomes of the client's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is missing.
    Complete,
    /// An error event still has to be sent.
    Say(Bytes),
    /// Only a broken connection can tell.
    Abort,
}

impl Watch {
    pub(crate) fn new(ending: Ending) -> Self {
        Self { ending, tail: vec![b'\n'], seen: ending == Ending::Whole }
    }

    /// Looks at what goes by.
    pub(crate) fn see(&mut self, data: &[u8]) {
        if self.seen {
            return;
        }
        let head = data.get(..data.len().min(KEPT)).unwrap_or_default();
        self.tail.extend_from_slice(head);
        self.seen = marks(self.ending)
            .iter()
            .any(|mark| memmem::find(&self.tail, mark).is_some() || memmem::find(data, mark).is_some());
        let last = if data.len() > KEPT { data } else { &self.tail };
        let last = last.get(last.len().saturating_sub(KEPT)..).unwrap_or_default().to_vec();
        self.tail = last;
    }

    /// Judges the whole stream, now that it has ended.
    ///
    /// Ollama ends a native stream without its last line when a model repeats itself: that end is in order.
    pub(crate) fn verdict(&self, end: End) -> Verdict {
        match (self.ending, end) {
            (Ending::Whole | Ending::DoneLine, End::Closed) => Verdict::Complete,
            (Ending::Whole, _) => Verdict::Abort,
            _ if self.seen => Verdict::Complete,
            _ => Verdict::Say(self.error(end).into()),
        }
    }

    /// The error event of the stream's API, on a line of its own.
    fn error(&self, end: End) -> String {
        let message = match end {
            End::Closed | End::Broken => "The model stopped before its answer was complete.",
            End::Drained => "This pod is shutting down: the answer is not complete.",
            End::Stalled => "The model has stopped working: the answer is not complete.",
        };
        let fresh = if self.tail.ends_with(b"\n") { "" } else { "\n" };
        match self.ending {
            Ending::Whole | Ending::DoneLine => format!("{fresh}{}\n", json!({ "error": message })),
            Ending::DoneData => {
                let error = json!({ "message": message, "type": "api_error", "param": null, "code": null });
                format!("{fresh}{fresh}data: {}\n\n", json!({ "error": error }))
            }
            Ending::MessageStop => {
                let error = json!({ "type": "api_error", "message": message });
                format!(
                    "{fresh}{fresh}event: error\ndata: {}\n\n",
                    json!({ "type": "error", "error": error })
                )
            }
            Ending::ResponseCompleted => {
                let error =
                    json!({ "type": "error", "code": "server_error", "message": message, "param": null });
                format!("{fresh}{fresh}event: error\ndata: {error}\n\n")
            }
        }
    }
}

/// What marks a complete stream. In JSON text a line break is escaped, so a mark behind one is never a model's words.
fn marks(ending: Ending) -> &'static [&'static [u8]] {
    match ending {
        Ending::Whole => &[],
        Ending::DoneLine => &[b"\"done\":true", b"\n{\"error\":"],
        Ending::DoneData => &[b"\ndata: [DONE]", b"\ndata: {\"error\":"],
        Ending::MessageStop => &[b"\nevent: message_stop", b"\nevent: error"],
        Ending::ResponseCompleted => &[
            b"\nevent: response.completed",
            b"\nevent: response.incomplete",
            b"\nevent: response.failed",
            b"\nevent: error",
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_words(ending: Ending, frames: &[&str], end: End) -> Option<String> {
        let mut watch = Watch::new(ending);
        for frame in frames {
            watch.see(frame.as_bytes());
        }
        match watch.verdict(end) {
            Verdict::Complete => None,
            Verdict::Say(words) => Some(String::from_utf8(words.to_vec()).unwrap()),
            Verdict::Abort => panic!("a stream has words for its end"),
        }
    }

    #[test]
    fn a_complete_stream_is_left_alone() {
        for (ending, whole) in [
            (Ending::DoneLine, "{\"response\":\"a\",\"done\":false}\n{\"response\":\"\",\"done\":true}\n"),
            (Ending::DoneLine, "{\"done\":false}\n{\"error\":\"gone\"}\n"),
            (Ending::DoneData, "data: {}\n\ndata: [DONE]\n\n"),
            (Ending::MessageStop, "event: ping\ndata: {}\n\nevent: message_stop\ndata: {}\n\n"),
            (Ending::ResponseCompleted, "event: response.completed\ndata: {}\n\n"),
        ] {
            for cut in 0..=whole.len() {
                let (left, right) = whole.split_at(cut);
                assert_eq!(last_words(ending, &[left, right], End::Broken), None, "{ending:?} cut at {cut}");
            }
            let bytes: Vec<String> = whole.chars().map(String::from).collect();
            let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
            assert_eq!(last_words(ending, &bytes, End::Broken), None, "{ending:?} byte by byte");
        }
    }

    #[test]
    fn a_broken_stream_ends_in_its_apis_own_error() {
        let told = last_words(Ending::DoneLine, &["{\"done\":false}\n"], End::Broken).unwrap();
        assert!(told.starts_with("{\"error\":\"") && told.ends_with("}\n"), "{told}");
        let told = last_words(Ending::DoneData, &["data: {}\n\n"], End::Closed).unwrap();
        assert!(told.starts_with("data: {\"error\":{") && told.ends_with("}\n\n"), "{told}");
        for ending in [Ending::MessageStop, Ending::ResponseCompleted] {
            let told = last_words(ending, &["event: x\ndata: {}\n\n"], End::Closed).unwrap();
            assert!(told.starts_with("event: error\ndata: {") && told.ends_with("}\n\n"), "{told}");
        }
    }

    #[test]
    fn a_stream_cut_by_a_shutdown_ends_in_its_apis_own_error() {
        for (ending, begins) in [
            (Ending::DoneLine, "{\"error\":\""),
            (Ending::DoneData, "data: {\"error\":{"),
            (Ending::MessageStop, "event: error\ndata: {"),
            (Ending::ResponseCompleted, "event: error\ndata: {"),
        ] {
            let told = last_words(ending, &["{}\n"], End::Drained).unwrap();
            assert!(told.starts_with(begins) && told.contains("shutting down"), "{told}");
        }
        assert_eq!(last_words(Ending::DoneData, &["data: [DONE]\n\n"], End::Drained), None);
        assert_eq!(Watch::new(Ending::Whole).verdict(End::Drained), Verdict::Abort);
    }

    #[test]
    fn an_answer_that_is_no_stream_can_only_break() {
        assert_eq!(Watch::new(Ending::Whole).verdict(End::Closed), Verdict::Complete);
        assert_eq!(Watch::new(Ending::Whole).verdict(End::Broken), Verdict::Abort);
    }

    #[test]
    fn an_error_begins_on_a_line_of_its_own() {
        let told = last_words(Ending::DoneData, &["data: {\"a"], End::Broken).unwrap();
        assert!(told.starts_with("\n\ndata: "), "{told}");
    }

    #[test]
    fn a_native_stream_may_end_without_its_last_line() {
        assert_eq!(last_words(Ending::DoneLine, &["{\"done\":false}\n"], End::Closed), None);
    }

    #[test]
    fn a_models_words_are_no_mark() {
        let told = "data: {\"content\":\"\\ndata: [DONE]\"}\n\n";
        assert!(last_words(Ending::DoneData, &[told], End::Closed).is_some());
        let told = "{\"response\":\"\\\"done\\\":true\",\"done\":false}\n";
        assert!(last_words(Ending::DoneLine, &[told], End::Broken).is_some());
    }
}
