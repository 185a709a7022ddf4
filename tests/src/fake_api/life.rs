//! The life of one process that talks to the server: when it is over, nothing of it reaches anybody any more.

use std::sync::Arc;

use tokio::sync::watch;

/// How far a process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Alive,
    /// Its next request is the one that it dies over.
    Doomed,
    Over,
}

/// The life of one process. A clone is the same life.
#[derive(Debug, Clone)]
pub struct Life {
    stage: Arc<watch::Sender<Stage>>,
}

impl Default for Life {
    fn default() -> Self {
        Self { stage: Arc::new(watch::Sender::new(Stage::Alive)) }
    }
}

impl Life {
    /// Whether it is over: what is left of the process must be ended by whoever started it.
    pub fn is_over(&self) -> bool {
        *self.stage.borrow() == Stage::Over
    }

    /// Lets it die at its next request.
    pub(crate) fn doom(&self) {
        self.stage.send_replace(Stage::Doomed);
    }

    /// Begins a request; it never ends for one that is dead.
    pub async fn live_on(&self) {
        self.stage.send_if_modified(|stage| {
            let dies = *stage == Stage::Doomed;
            if dies {
                *stage = Stage::Over;
            }
            dies
        });
        if self.is_over() {
            std::future::pending::<()>().await;
        }
    }
}
