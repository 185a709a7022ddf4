//! The breaker as the data path and the probes meet in it.

use std::time::Duration;

use corral_limiter::Nanos;

use super::breaker::{Circuit, Fate, Ticket};
use super::{Breaker, Health};
use crate::clock::Clock;

/// The right to send Ollama one request. Dropped: nobody waited for what became of it.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    health: &'a Health,
    clock: Clock,
    ticket: Option<Ticket>,
}

impl Pass<'_> {
    /// The head of an answer has come, whatever it says.
    pub(crate) fn answered(mut self) {
        self.end(Fate::Answered, |length| length);
    }

    /// There was no connection, or it ended without a head. `vary` makes a time longer or shorter by chance.
    pub(crate) fn failed(mut self, vary: impl FnOnce(Duration) -> Duration) {
        self.end(Fate::Failed, vary);
    }

    fn end(&mut self, fate: Fate, vary: impl FnOnce(Duration) -> Duration) {
        let Some(ticket) = self.ticket.take() else { return };
        let now = self.clock.now();
        self.health.step(|breaker| breaker.ended(ticket, fate, now, vary));
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.end(Fate::Unknown, |length| length);
    }
}

impl Health {
    /// Whether Ollama may be sent a request just now; none if it may not. While a trial runs, that is not known yet.
    pub(crate) async fn let_pass(&self, clock: &Clock) -> Option<Pass<'_>> {
        if let Some(pass) = self.ask(clock) {
            return Some(pass);
        }
        let mut circuit = self.circuit.subscribe();
        loop {
            // Seen before it is asked, so that no change is missed.
            circuit.borrow_and_update();
            if let Some(pass) = self.ask(clock) {
                return Some(pass);
            }
            if self.circuit() == Circuit::Open {
                return None;
            }
            // The sender lives in `self`, so this cannot fail.
            let _ = circuit.changed().await;
        }
    }

    fn ask(&self, clock: &Clock) -> Option<Pass<'_>> {
        let now = clock.now();
        let ticket = self.step(|breaker| breaker.ask(now))?;
        Some(Pass { health: self, clock: *clock, ticket: Some(ticket) })
    }

    /// For how long nothing is sent to Ollama, if nothing is.
    pub(crate) fn shut_for(&self, now: Nanos) -> Option<Nanos> {
        self.breaker.lock().open_until().map(|until| until.since(now))
    }

    /// Whether Ollama is sent anything.
    pub fn circuit(&self) -> Circuit {
        self.breaker.lock().circuit()
    }

    /// Ollama was down, and is up again.
    pub(super) fn came_back(&self) {
        self.step(Breaker::came_back);
    }

    /// Has it change when its time is over; until this is dropped.
    pub(crate) async fn watch_breaker(&self, clock: &Clock) {
        let mut circuit = self.circuit.subscribe();
        loop {
            // Seen before it is read, so that no change is missed.
            circuit.borrow_and_update();
            let until = self.breaker.lock().changes_at();
            let over = async {
                match until {
                    Some(until) => tokio::time::sleep_until(clock.instant(until)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender lives in `self`, so this cannot fail.
                _ = circuit.changed() => {}
                () = over => self.step(|breaker| breaker.look(clock.now())),
            }
        }
    }

    /// Does one step, and tells of the state that it led to while nobody else can do another.
    fn step<T>(&self, step: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breaker = self.breaker.lock();
        let done = step(&mut breaker);
        let (circuit, state) = (breaker.circuit(), (breaker.circuit(), breaker.changes_at()));
        if self.circuit.send_if_modified(|known| std::mem::replace(known, state) != state) {
            self.change(|known| known.facts.circuit = circuit);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::super::{Reason, Sign};
    use super::*;

    fn serving() -> Health {
        let health = Health::new();
        health.plan_accepted();
        health.told_to_serve();
        health.upstream_answered();
        health
    }

    async fn open(health: &Health, clock: &Clock) {
        for _ in 0..5 {
            health.let_pass(clock).await.unwrap().failed(|length| length);
        }
        assert_eq!((health.circuit(), health.readiness().reason), (Circuit::Open, Reason::BreakerOpen));
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_breaker_is_told_and_comes_back_by_itself_for_a_trial() {
        let (health, clock) = (serving(), Clock::start());
        open(&health, &clock).await;
        assert!(health.let_pass(&clock).await.is_none());
        assert_eq!(health.shut_for(clock.now()), Some(Nanos::from_secs(5)));
        tokio::select! {
            () = health.watch_breaker(&clock) => {}
            () = tokio::time::sleep(Duration::from_millis(5010)) => {}
        }
        assert_eq!((health.circuit(), health.readiness().ready()), (Circuit::HalfOpen, true));
        assert_eq!(health.transitions().find(|(reason, _)| *reason == Reason::BreakerOpen).unwrap().1, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_trial_runs_the_others_wait_for_what_comes_of_it() {
        for passes in [true, false] {
            let (health, clock) = (serving(), Clock::start());
            open(&health, &clock).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            let trial = health.let_pass(&clock).await.unwrap();
            let mut others: Vec<_> = (0..3).map(|_| Box::pin(health.let_pass(&clock))).collect();
            assert!(others.iter_mut().all(|other| other.now_or_never().is_none()));
            if passes {
                trial.answered();
            } else {
                trial.failed(|length| length);
            }
            for other in others {
                assert_eq!(other.now_or_never().unwrap().is_some(), passes);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_is_dropped_or_kept_long_lets_the_next_one_pass() {
        let (health, clock) = (serving(), Clock::start());
        open(&health, &clock).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let trial = health.let_pass(&clock).await.unwrap();
        let next = health.let_pass(&clock);
        tokio::pin!(next);
        assert!(next.as_mut().now_or_never().is_none());
        drop(trial);
        let trial = next.now_or_never().unwrap().unwrap();
        let waiting = async {
            let from = clock.now();
            (health.let_pass(&clock).await.is_some(), clock.now().since(from).secs_ceil())
        };
        tokio::select! {
            () = health.watch_breaker(&clock) => {}
            waited = waiting => assert_eq!(waited, (true, 5)),
        }
        assert_eq!(health.circuit(), Circuit::Closed);
        drop(trial);
    }

    #[tokio::test(start_paused = true)]
    async fn probes_that_see_ollama_come_back_make_the_wait_needless() {
        let (health, clock) = (serving(), Clock::start());
        open(&health, &clock).await;
        health.saw(Sign::Refused);
        assert_eq!(health.readiness().reason, Reason::OllamaDown);
        health.saw(Sign::Answer);
        assert_eq!(health.circuit(), Circuit::Open);
        health.saw(Sign::Answer);
        assert_eq!((health.circuit(), health.readiness().ready()), (Circuit::HalfOpen, true));
    }
}
