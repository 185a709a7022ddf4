//! When the activators of a pool stand in its Service: while no pod of it serves, and beside the last one for some seconds
//! before that is told to go. Never beside one that serves and stays. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

/// For so long activators and a pod stand side by side, on the way to zero and back: load balancers hear late of both.
pub const OVERLAP: Duration = Duration::from_secs(5);

/// What a pool needs activators for, by its spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It goes to zero and back.
    Zero,
    /// It goes to zero no more, and pods are asked for: what is held waits for them.
    LetGo,
    /// It is stopped: no pod is asked for, and what is held wakes nobody.
    Nothing,
}

/// What the activators of a pool are there for now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Part {
    /// They are behind the Service.
    #[default]
    Stands,
    /// A pod is: they only wait to be needed, or let go what they hold.
    Aside,
    /// The pool needs them no more: it does not go to zero, and a pod serves and nothing is held, or it is stopped.
    Ended,
}

/// Whether the activators of one pool stand in its Service, and for how long they have.
#[derive(Debug, Default)]
pub struct Stand {
    /// Since when a pod is ready, without a break; none while none is.
    served: Option<Duration>,
    /// Whether pods were looked at yet: one that was ready before that has been for long.
    has_looked: bool,
    /// The last pod is to go.
    leaves: bool,
    written: Option<Written>,
}

#[derive(Debug)]
struct Written {
    part: Part,
    /// Who stands there.
    uids: BTreeSet<String>,
    /// Since when somebody does.
    since: Duration,
}

impl Stand {
    /// Takes whether a pod of the pool is ready.
    pub fn look(&mut self, is_served: bool, now: Duration) {
        let since = if self.has_looked { now } else { Duration::ZERO };
        self.served = is_served.then(|| self.served.unwrap_or(since));
        self.has_looked = true;
    }

    /// Takes whether the last pod is to go.
    pub fn leave(&mut self, leaves: bool) {
        self.leaves = leaves;
    }

    /// What they are there for now, by what the pool needs them for, and whether something is held.
    pub fn part(&self, (need, holds): (Need, bool), now: Duration) -> Part {
        if need == Need::Nothing {
            return Part::Ended;
        }
        let serves = |since: Duration| since.is_zero() || now.saturating_sub(since) >= OVERLAP;
        if self.leaves || !self.served.is_some_and(serves) {
            return Part::Stands;
        }
        if need == Need::Zero || holds { Part::Aside } else { Part::Ended }
    }

    /// Whether they do not do so yet.
    pub fn is_due(&self, part: Part) -> bool {
        self.written.as_ref().is_none_or(|written| written.part != part)
    }

    /// Takes who stands in the Service since now, as it was written.
    pub fn wrote(&mut self, part: Part, uids: BTreeSet<String>, now: Duration) {
        let before = self.written.take().filter(|written| !written.uids.is_empty());
        let since = before.map_or(now, |written| written.since);
        self.written = Some(Written { part, uids, since });
    }

    /// Whether the last pod may be told to go: somebody who `is_heard` has stood in its place for long enough.
    pub fn stands(&self, is_heard: impl Fn(&str) -> bool, now: Duration) -> bool {
        self.written.as_ref().is_some_and(|written| {
            written.part == Part::Stands
                && now.saturating_sub(written.since) >= OVERLAP
                && written.uids.iter().any(|uid| is_heard(uid))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO_ZERO: (Need, bool) = (Need::Zero, false);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn who(uids: &[&str]) -> BTreeSet<String> {
        uids.iter().map(|uid| (*uid).to_owned()).collect()
    }

    #[test]
    fn they_stand_there_until_a_pod_has_been_ready_for_some_seconds_and_never_beside_a_healthy_one() {
        let mut stand = Stand::default();
        assert_eq!(stand.part(TO_ZERO, at(0)), Part::Stands);
        stand.look(false, at(1));
        stand.look(true, at(10));
        assert_eq!(stand.part(TO_ZERO, at(14)), Part::Stands);
        assert_eq!(stand.part(TO_ZERO, at(15)), Part::Aside);
        stand.look(true, at(100));
        assert_eq!(stand.part(TO_ZERO, at(100)), Part::Aside);
        stand.look(false, at(101));
        assert_eq!(stand.part(TO_ZERO, at(101)), Part::Stands);
        stand.look(true, at(102));
        assert_eq!(stand.part(TO_ZERO, at(103)), Part::Stands, "it was away");
    }

    #[test]
    fn a_new_operator_does_not_bring_them_in_beside_a_pod_that_serves() {
        let mut stand = Stand::default();
        stand.look(true, at(3));
        assert_eq!(stand.part(TO_ZERO, at(3)), Part::Aside);
    }

    #[test]
    fn the_last_pod_goes_only_after_somebody_who_is_heard_has_stood_beside_it() {
        let mut stand = Stand::default();
        stand.look(true, at(0));
        stand.leave(true);
        assert_eq!(stand.part(TO_ZERO, at(1)), Part::Stands);
        assert!(stand.is_due(Part::Stands) && !stand.stands(|_| true, at(90)), "nothing was written yet");
        stand.wrote(Part::Stands, who(&[]), at(2));
        assert!(!stand.is_due(Part::Stands) && !stand.stands(|_| true, at(90)), "nobody is ready");
        stand.wrote(Part::Stands, who(&["a"]), at(90));
        assert!(!stand.stands(|_| true, at(94)) && stand.stands(|_| true, at(95)));
        assert!(!stand.stands(|uid| uid == "b", at(95)), "who stands there is not heard");
        stand.wrote(Part::Stands, who(&["b"]), at(96));
        assert!(stand.stands(|uid| uid == "b", at(96)), "one after the other is without a gap");
        stand.leave(false);
        assert_eq!(stand.part(TO_ZERO, at(97)), Part::Aside);
        stand.wrote(Part::Aside, who(&[]), at(97));
        stand.wrote(Part::Stands, who(&["b"]), at(98));
        assert!(!stand.stands(|_| true, at(99)), "it begins anew");
    }

    #[test]
    fn they_end_only_when_a_pod_serves_and_nothing_is_held() {
        let mut stand = Stand::default();
        stand.look(false, at(0));
        assert_eq!(stand.part((Need::LetGo, false), at(0)), Part::Stands);
        stand.look(true, at(1));
        assert_eq!(stand.part((Need::LetGo, true), at(6)), Part::Aside);
        assert_eq!(stand.part((Need::LetGo, false), at(6)), Part::Ended);
    }

    #[test]
    fn those_of_a_stopped_pool_end_though_no_pod_serves_and_something_is_held() {
        let mut stand = Stand::default();
        stand.look(false, at(0));
        stand.leave(true);
        assert_eq!(stand.part((Need::Nothing, true), at(0)), Part::Ended);
    }
}
