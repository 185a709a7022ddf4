//! A request that is turned away because nobody knows who sent it.

use corral_wire::{KeyPart, Mode};

use super::Limiter;
use crate::{
    HeadFacts, Limit, Nanos, Refusal, Usage,
    judge::Asked,
    reserve::Holding,
    state::{Moment, Seens, Verdict},
};

impl Limiter {
    /// A 401 of ours: charges the request limits that the head decides and that tell addresses apart, each once, and no
    /// other, for strangers must not use up what clients share. Where one of them is used up the answer is its refusal:
    /// keys are not to be guessed at any rate.
    pub fn turn_away(&mut self, head: &HeadFacts, now: Nanos) -> Result<(), Refusal> {
        let now = self.advance(now);
        let mut ticket = Holding::new(head.clone());
        let (enforced, refusal) = self.look_by_address(Mode::Enforce, &ticket, now);
        if let Some(refusal) = refusal {
            return Err(self.counted(refusal));
        }
        let (shadow, _) = self.look_by_address(Mode::Shadow, &ticket, now);
        for seen in enforced.iter().chain(shadow.iter()).filter(|seen| seen.verdict == Verdict::Admit) {
            if let Some(state) = self.states.get_mut(seen.place) {
                state.charge(seen, &mut ticket, Nanos::ZERO, now);
            }
        }
        // It holds no guard, and what it was charged stands.
        drop(ticket);
        Ok(())
    }

    /// How the limits of a mode that tell addresses apart see a request, and what those have against it that refuse.
    fn look_by_address(&self, mode: Mode, ticket: &Holding, now: Nanos) -> (Seens, Option<Refusal>) {
        let Some(judge) = self.judge() else { return (Seens::default(), None) };
        let traits = judge.plan.traits(&ticket.head);
        let asked = &Asked {
            head: &ticket.head,
            traits: &traits,
            model: None,
            usage: &Usage::default(),
            held: &ticket.held,
            moment: Moment::Head,
            now,
        };
        let seens = judge.look_where(mode, asked, tells_addresses_apart);
        let refusal = judge.accusation(&seens, asked);
        (seens, refusal)
    }
}

fn tells_addresses_apart(limit: &Limit) -> bool {
    limit.per().iter().any(|part| matches!(part, KeyPart::Client | KeyPart::ClientIP))
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, sync::Arc};

    use corral_wire::{EndpointClass, LimitDoc, PLAN_VERSION, PlanDoc, PoolRef, QueueDoc, RateDoc};

    use super::*;
    use crate::{LimiterSettings, compile};

    const NOW: Nanos = Nanos::from_secs(1);

    fn limiter() -> Limiter {
        let limit = |name: &str, part, burst| LimitDoc {
            policy: "llm/fair-use".to_owned(),
            name: name.to_owned(),
            per: vec![part],
            requests: Some(RateDoc { count_milli: 1000, window_seconds: 3600, burst }),
            ..LimitDoc::default()
        };
        let doc = PlanDoc {
            version: PLAN_VERSION,
            pool: PoolRef { namespace: "llm".to_owned(), name: "chat".to_owned() },
            queue: QueueDoc { max_depth: 1, max_wait_ms: 1000, ..QueueDoc::default() },
            limits: vec![limit("address", KeyPart::ClientIP, 2), limit("all", KeyPart::Global, 1)],
            ..PlanDoc::default()
        };
        let mut limiter = Limiter::new(LimiterSettings { hash_key: [0; 16], keys_per_limit: 10 });
        limiter.swap(Arc::new(compile(&doc).unwrap()), NonZeroU32::MIN, NOW);
        limiter
    }

    fn from(last: u8) -> HeadFacts {
        HeadFacts::new([192, 0, 2, last].into(), EndpointClass::Chat, "/api/chat")
    }

    #[test]
    fn strangers_use_up_their_own_address_and_nothing_that_is_shared() {
        let mut limiter = limiter();
        let before = limiter.standing(&from(2), None, NOW);
        assert_eq!(limiter.turn_away(&from(1), NOW), Ok(()));
        assert_eq!(limiter.turn_away(&from(1), NOW), Ok(()));
        let refusal = limiter.turn_away(&from(1), NOW).unwrap_err();
        let named: Vec<&str> = refusal.violations.iter().map(|one| one.limit.name.as_str()).collect();
        assert_eq!(named, ["address"]);
        assert_eq!(limiter.standing(&from(2), None, NOW), before);
    }
}
