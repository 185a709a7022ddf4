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
    /// Whether Ollama may be sent a request just now.
    pub(crate) fn let_pass(&self, clock: &Clock) -> Option<Pass<'_>> {
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

    /// Opens again what is open, when its time is over; until it is dropped.
    pub(crate) async fn watch_breaker(&self, clock: &Clock) {
        let mut circuit = self.circuit.subscribe();
        loop {
            // Seen before it is read, so that no change is missed.
            circuit.borrow_and_update();
            let until = self.breaker.lock().open_until();
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
        let (circuit, until) = (breaker.circuit(), breaker.open_until());
        let told = |known: &mut (Circuit, Option<Nanos>)| {
            std::mem::replace(known, (circuit, until)) != (circuit, until)
        };
        if self.circuit.send_if_modified(told) {
            self.change(|known| known.facts.circuit = circuit);
        }
        done
    }
}
