//! The hand-off of slots, in every order in which threads can meet: `RUSTFLAGS="--cfg loom" cargo test -p corral-limiter
//! --test loom`.
//!
//! A toy queue stands for the real one, with what matters here: one lock; slots; waiters in a line; whoever makes a slot
//! free gives it to the first in the line before the lock is let go. A model of which some order blocks for ever, for
//! want of a wake-up, fails as a deadlock.
#![cfg(test)]
#![cfg(loom)]

use std::collections::VecDeque;

use corral_limiter::handoff::{Giver, Taker, pair};
use loom::{
    future::block_on,
    model::Builder,
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

/// How often a thread is interrupted where it need not be. Bugs of this kind show with two; `LOOM_MAX_PREEMPTIONS` says
/// another number.
const INTERRUPTIONS: usize = 3;

fn every_order(scene: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(INTERRUPTIONS));
    builder.check(scene);
}

/// The queue and its lock.
struct Hall(Mutex<Queue>);

struct Queue {
    free: usize,
    running: usize,
    waiting: VecDeque<(u32, Giver<Slot>)>,
    slots: usize,
}

impl Queue {
    /// What must be so whenever the lock is let go.
    fn check(&self) {
        assert_eq!(self.free + self.running, self.slots, "a slot is lost, or there are two of one");
        assert!(self.free == 0 || self.waiting.is_empty(), "one waits beside a free slot");
    }

    /// Gives free slots to those who wait, the first first. One who has gone without a word is passed over.
    fn dispatch(&mut self, hall: &Arc<Hall>) {
        while self.free > 0
            && let Some((_, giver)) = self.waiting.pop_front()
        {
            match giver.give(Slot(Some(Arc::clone(hall)))) {
                Ok(()) => (self.free, self.running) = (self.free - 1, self.running + 1),
                // Its drop would take the lock that is held here.
                Err(mut slot) => drop(slot.0.take()),
            }
        }
        self.check();
    }
}

impl Hall {
    /// Of so many slots, all free.
    fn with(slots: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Queue { free: slots, running: 0, waiting: VecDeque::new(), slots })))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap()
    }

    /// Comes and waits, or has its slot when this returns.
    fn arrive(hall: &Arc<Self>, id: u32) -> Waiter {
        let (giver, taker) = pair();
        let mut queue = hall.lock();
        queue.waiting.push_back((id, giver));
        queue.dispatch(hall);
        drop(queue);
        Waiter { id, taker, hall: Arc::clone(hall) }
    }

    fn assert_at_rest(&self) {
        let queue = self.lock();
        assert_eq!((queue.free, queue.running, queue.waiting.len()), (queue.slots, 0, 0));
    }
}

/// A slot in somebody's hands. Dropped: it goes to the next.
struct Slot(Option<Arc<Hall>>);

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(hall) = self.0.take() else { return };
        let mut queue = hall.lock();
        (queue.free, queue.running) = (queue.free + 1, queue.running - 1);
        queue.dispatch(&hall);
    }
}

/// One who waits. Dropped: it is out of the line at once, and what it was given meanwhile goes to the next.
struct Waiter {
    id: u32,
    taker: Taker<Slot>,
    hall: Arc<Hall>,
}

impl Waiter {
    /// Waits to the end.
    fn wait(mut self) -> Slot {
        block_on(&mut self.taker).expect("the queue outlives those who wait")
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut queue = self.hall.lock();
        queue.waiting.retain(|(id, _)| *id != self.id);
        // Given in the meantime, or long taken. Nothing can be given from here on.
        let given = self.taker.take();
        drop(queue);
        drop(given);
    }
}

/// Works with a slot; nobody has the same one.
fn work(slot: Slot) {
    let hall = slot.0.as_ref().unwrap();
    let queue = hall.lock();
    assert!(queue.running >= 1 && queue.running <= queue.slots);
    drop(queue);
    drop(slot);
}

#[test]
fn who_leaves_at_any_moment_takes_no_slot_along_and_the_next_is_served() {
    every_order(|| {
        let hall = Hall::with(1);
        let held = Hall::arrive(&hall, 0).wait();
        let (leaver, stayer) = (Hall::arrive(&hall, 1), Hall::arrive(&hall, 2));
        let leaving = thread::spawn(move || drop(leaver));
        let stays = thread::spawn(move || work(stayer.wait()));
        drop(held);
        leaving.join().unwrap();
        stays.join().unwrap();
        hall.assert_at_rest();
    });
}

#[test]
fn who_comes_while_a_slot_comes_back_is_served() {
    every_order(|| {
        let hall = Hall::with(1);
        let held = Hall::arrive(&hall, 0).wait();
        let others = [1, 2].map(|id| {
            let hall = Arc::clone(&hall);
            thread::spawn(move || work(Hall::arrive(&hall, id).wait()))
        });
        drop(held);
        for other in others {
            other.join().unwrap();
        }
        hall.assert_at_rest();
    });
}

#[test]
fn two_slots_come_back_at_once_and_two_wait_of_whom_one_leaves() {
    every_order(|| {
        let hall = Hall::with(2);
        let (one, other) = (Hall::arrive(&hall, 0).wait(), Hall::arrive(&hall, 1).wait());
        let (leaver, stayer) = (Hall::arrive(&hall, 2), Hall::arrive(&hall, 3));
        let gives = thread::spawn(move || drop(one));
        let leaving = thread::spawn(move || drop(leaver));
        drop(other);
        work(stayer.wait());
        gives.join().unwrap();
        leaving.join().unwrap();
        hall.assert_at_rest();
    });
}

/// Who is aborted between its look and its leave-taking drops its half of the cell alone.
#[test]
fn a_slot_given_to_one_who_has_gone_without_a_word_goes_to_the_next() {
    every_order(|| {
        let hall = Hall::with(1);
        let held = Hall::arrive(&hall, 0).wait();
        let (giver, taker) = pair();
        hall.lock().waiting.push_back((1, giver));
        let stayer = Hall::arrive(&hall, 2);
        let goes = thread::spawn(move || drop(taker));
        let stays = thread::spawn(move || work(stayer.wait()));
        drop(held);
        goes.join().unwrap();
        stays.join().unwrap();
        hall.assert_at_rest();
    });
}

#[test]
fn who_is_to_be_given_something_learns_when_the_giver_goes() {
    every_order(|| {
        let (giver, taker) = pair::<u8>();
        let goes = thread::spawn(move || drop(giver));
        assert_eq!(block_on(taker), None);
        goes.join().unwrap();
    });
}

/// Without a queue around it: what is given is taken, comes back, or is dropped with the taker; one of them, once.
#[test]
fn what_is_given_is_in_one_pair_of_hands() {
    every_order(|| {
        let (source, mut hand) = pair();
        let token = Arc::new(());
        let thing = Arc::clone(&token);
        let giving = thread::spawn(move || source.give(thing).err());
        let got = hand.take();
        drop(hand);
        let back = giving.join().unwrap();
        assert!(got.is_none() || back.is_none());
        drop((got, back));
        assert_eq!(Arc::strong_count(&token), 1);
    });
}
