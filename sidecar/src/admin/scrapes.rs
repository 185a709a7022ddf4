//! Metrics are rendered at most ten times a second, however often they are asked for.
//!
//! Rendering runs on the thread that answers the probes. Whoever asks in between gets a pointer to the text that is there.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Far below every scrape interval.
const KEPT_FOR: Duration = Duration::from_millis(100);

/// The last text of each content type; there are two.
#[derive(Debug, Default)]
pub(super) struct Scrapes {
    kept: Mutex<HashMap<&'static str, Kept>>,
}

#[derive(Debug)]
struct Kept {
    until: Instant,
    text: Bytes,
}

impl Scrapes {
    /// The text of this content type: the one that is kept, or a new one.
    pub(super) fn text(&self, kind: &'static str, render: impl FnOnce() -> String) -> Bytes {
        let mut kept = self.kept.lock();
        if let Some(last) = kept.get(kind)
            && Instant::now() < last.until
        {
            return last.text.clone();
        }
        let text = Bytes::from(render());
        // From its end: a rendering that takes long must not be out of date at once.
        kept.insert(kind, Kept { until: Instant::now() + KEPT_FOR, text: text.clone() });
        text
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_text_is_rendered_once_in_its_time_and_each_kind_has_its_own() {
        let (scrapes, mut renderings) = (Scrapes::default(), 0);
        let mut ask = |kind| {
            scrapes.text(kind, || {
                renderings += 1;
                renderings.to_string()
            })
        };
        assert_eq!([ask("old"), ask("old"), ask("new"), ask("old")], ["1", "1", "2", "1"]);
        advance(Duration::from_millis(99)).await;
        assert_eq!([ask("old"), ask("new")], ["1", "2"]);
        advance(Duration::from_millis(1)).await;
        assert_eq!([ask("old"), ask("old")], ["3", "3"]);
    }
}
