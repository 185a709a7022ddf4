//! Where those meet who bear on leaving the Service for load: who permits it, who decides it, and who tells it.

use corral_limiter::Nanos;
use corral_wire::Relief;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How it stands with the load, for reports and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadView {
    /// The load index in thousandths.
    pub permille: u32,
    /// Whether the pod is out for its load, or would be.
    pub relief: Relief,
}

/// Shared by the plan store, which hears directives, the sampler and the reports.
#[derive(Debug, Default)]
pub struct Desk {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    permitted_at: Option<Nanos>,
    view: LoadView,
}

impl Desk {
    /// A directive that was heard at `now` permits the pod to be out, or no longer does.
    pub fn permit(&self, relief: bool, now: Nanos) {
        let mut state = self.state.lock();
        let changed = state.permitted_at.is_some() != relief;
        state.permitted_at = relief.then_some(now);
        if changed {
            self.news.notify_one();
        }
    }

    /// When the permission that stands was heard.
    pub fn permitted_at(&self) -> Option<Nanos> {
        self.state.lock().permitted_at
    }

    /// Resolves when a permission was given or withdrawn since the last time.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Says how it stands.
    pub fn show(&self, view: LoadView) {
        self.state.lock().view = view;
    }

    /// How it was last said to stand.
    pub fn view(&self) -> LoadView {
        self.state.lock().view
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn only_a_permission_that_changes_is_news() {
        let desk = Desk::default();
        let told = || desk.news().now_or_never().is_some();
        for (relief, news) in [(false, false), (true, true), (true, false), (false, true), (false, false)] {
            desk.permit(relief, Nanos::from_secs(7));
            assert_eq!(told(), news, "{relief}");
            assert_eq!(desk.permitted_at(), relief.then_some(Nanos::from_secs(7)));
        }
    }
}
