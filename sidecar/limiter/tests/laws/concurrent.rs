//! Law 5: what k threads see of one limiter is what a single thread would have seen, in some order of their calls.
//!
//! Nothing is noted under the lock, for an order that the lock wrote would only say that the lock has one. Each thread
//! notes for itself what came of its calls, and between which ticks of a common counter: one before it asks for the
//! lock, one after it has let go of it. Then an order that these ticks allow is searched, in which a limiter of one
//! thread gives every call the same answer and shows every client the same standing after it.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use corral_limiter::{BodyFacts, CommitError, Limiter, Nanos, Standing, Ticket};
use corral_wire::{KeyPart, LimitDoc};
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::{
    linear::{Alone, Call, order},
    support::{ask, gap, head, limit, limiter, limits, model, pods, rate, rated},
};

const THREADS: usize = 3;
const CLIENTS: u32 = 3;

/// What a thread does: a request from its head to its end, or a change of D.
#[derive(Debug, Clone, Copy)]
enum Job {
    Request { client: u32, model: u8, end: End },
    Pods(u32),
}

#[derive(Debug, Clone, Copy)]
enum End {
    Bad,
    NoPlace,
    Abandoned,
    Served,
}

/// A job, how long after the call before it each of its calls comes, and how long it dawdles before the lock.
type Timed = (Job, u64, u8);

fn jobs() -> impl Strategy<Value = Vec<Vec<Timed>>> {
    let end = prop_oneof![
        1 => Just(End::Bad),
        1 => Just(End::NoPlace),
        2 => Just(End::Abandoned),
        4 => Just(End::Served),
    ];
    let request =
        (0..CLIENTS, 0..2u8, end).prop_map(|(client, model, end)| Job::Request { client, model, end });
    let job = prop_oneof![8 => request, 1 => (1..4u32).prop_map(Job::Pods)];
    prop::collection::vec(prop::collection::vec((job, gap(), 0..4u8), 1..8), THREADS)
}

/// One call to the limiter, with all that it says.
#[derive(Debug, Clone, Copy)]
struct Deed {
    /// No two requests have the same.
    request: usize,
    client: u32,
    model: u8,
    act: Act,
    now: u64,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Enter,
    /// With a queue that has a place or not.
    Commit(bool),
    Bad,
    Abandon,
    Finish,
    Pods(u32),
}

/// What came of it, and how all clients stand then.
#[derive(Debug, PartialEq)]
struct Seen {
    came: Result<(), CommitError<()>>,
    standings: Vec<Vec<Standing>>,
}

type Tickets = HashMap<usize, Ticket>;

fn see(limiter: &mut Limiter, tickets: &mut Tickets, deed: &Deed) -> Seen {
    let came = perform(limiter, tickets, deed);
    let standing = |(client, number)| limiter.standing(&head(client), Some(&model(number)), Nanos(deed.now));
    let all = (0..CLIENTS).flat_map(|client| [(client, 0), (client, 1)]);
    Seen { came, standings: all.map(standing).collect() }
}

fn perform(limiter: &mut Limiter, tickets: &mut Tickets, deed: &Deed) -> Result<(), CommitError<()>> {
    let now = Nanos(deed.now);
    let ticket = |tickets: &mut Tickets| tickets.remove(&deed.request).unwrap();
    match deed.act {
        Act::Enter => {
            let ticket = limiter.enter(&head(deed.client), now).map_err(CommitError::Refused)?;
            tickets.insert(deed.request, ticket);
        }
        Act::Commit(has_place) => {
            let (model, ticket) = (model(deed.model), tickets.get_mut(&deed.request).unwrap());
            let arrival = |_: &_| has_place.then_some(()).ok_or(());
            limiter.commit(
                ticket,
                &BodyFacts { model: Some(&model), ..BodyFacts::default() },
                now,
                arrival,
            )?;
        }
        Act::Bad => limiter.bad_request(ticket(tickets), now),
        Act::Abandon => limiter.abandon(ticket(tickets), now),
        Act::Finish => limiter.finish(ticket(tickets), None, now),
        Act::Pods(count) => limiter.set_divisor(pods(count), now),
    }
    Ok(())
}

struct OneThread {
    limiter: Limiter,
    tickets: Tickets,
}

impl OneThread {
    fn with(limits: &[LimitDoc]) -> Self {
        Self { limiter: limiter(limits), tickets: Tickets::new() }
    }
}

impl Alone<(Deed, Seen)> for OneThread {
    fn agrees(&mut self, (deed, seen): &(Deed, Seen)) -> bool {
        see(&mut self.limiter, &mut self.tickets, deed) == *seen
    }
}

/// What all threads have in common.
struct Shared {
    limiter: Mutex<Limiter>,
    stamps: AtomicU64,
    clock: AtomicU64,
}

struct Worker<'a> {
    shared: &'a Shared,
    tickets: Tickets,
    calls: Vec<Call<(Deed, Seen)>>,
    requests: usize,
}

impl Worker<'_> {
    /// Does its jobs, and hands out what it has seen.
    fn work(mut self, jobs: &[Timed]) -> Vec<Call<(Deed, Seen)>> {
        for job in jobs {
            self.requests += THREADS;
            match job.0 {
                Job::Pods(count) => self.call(job, Act::Pods(count)),
                Job::Request { end, .. } => self.call(job, Act::Enter) && self.ends(job, end),
            };
        }
        self.calls
    }

    fn ends(&mut self, job: &Timed, end: End) -> bool {
        match end {
            End::Bad => self.call(job, Act::Bad),
            End::NoPlace => self.call(job, Act::Commit(false)),
            End::Abandoned => self.call(job, Act::Commit(true)) && self.call(job, Act::Abandon),
            End::Served => self.call(job, Act::Commit(true)) && self.call(job, Act::Finish),
        }
    }

    /// Makes one call. The time is read before the lock is asked for, as a server does: it may be late in order.
    fn call(&mut self, (job, after, dawdles): &Timed, act: Act) -> bool {
        let (client, model) = match *job {
            Job::Request { client, model, .. } => (client, model),
            Job::Pods(_) => (0, 0),
        };
        let began = self.shared.stamps.fetch_add(1, Ordering::SeqCst);
        let now = self.shared.clock.fetch_add(*after, Ordering::SeqCst);
        let deed = Deed { request: self.requests, client, model, act, now };
        (0..*dawdles).for_each(|_| thread::yield_now());
        let seen = see(&mut self.shared.limiter.lock(), &mut self.tickets, &deed);
        let ended = self.shared.stamps.fetch_add(1, Ordering::SeqCst);
        let goes_on = seen.came.is_ok();
        self.calls.push(Call { began, ended, what: (deed, seen) });
        goes_on
    }
}

/// Lets the threads loose on one limiter. The first call of each overlaps those of all others: nobody gets the lock
/// before all have asked for it.
fn history(limits: &[LimitDoc], jobs: &[Vec<Timed>]) -> Vec<Call<(Deed, Seen)>> {
    let (stamps, clock) = (AtomicU64::new(0), AtomicU64::new(0));
    let shared = Shared { limiter: Mutex::new(limiter(limits)), stamps, clock };
    let gate = shared.limiter.lock();
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for (requests, jobs) in jobs.iter().enumerate() {
            let (shared, tickets, calls) = (&shared, Tickets::new(), Vec::new());
            let worker = Worker { shared, tickets, calls, requests };
            workers.push(scope.spawn(move || worker.work(jobs)));
        }
        while shared.stamps.load(Ordering::SeqCst) < THREADS as u64 {
            thread::yield_now();
        }
        drop(gate);
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

fn overlaps<T>(calls: &[Call<T>]) -> usize {
    let pairs = calls.iter().flat_map(|one| calls.iter().map(move |other| (one, other)));
    pairs.filter(|(one, other)| one.began < other.began && other.began < one.ended).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_history_on_many_threads_is_one_of_a_single_thread(limits in limits(), jobs in jobs()) {
        let calls = history(&limits, &jobs);
        prop_assert!(overlaps(&calls) >= THREADS * (THREADS - 1) / 2);
        prop_assert!(order(&calls, || OneThread::with(&limits)).is_some(), "no order explains {:#?}", calls);
    }
}

/// Room for one request in all.
fn one_place() -> Vec<LimitDoc> {
    vec![LimitDoc { concurrency: Some(1), ..limit("one", &[KeyPart::Global]) }]
}

fn enters(stamps: (u64, u64), request: usize, by: &mut Limiter) -> Call<(Deed, Seen)> {
    let deed = Deed { request, client: 0, model: 0, act: Act::Enter, now: 0 };
    let seen = see(by, &mut Tickets::new(), &deed);
    Call { began: stamps.0, ended: stamps.1, what: (deed, seen) }
}

fn is_explained(calls: &[Call<(Deed, Seen)>]) -> bool {
    order(calls, || OneThread::with(&one_place())).is_some()
}

#[test]
fn two_limiters_that_do_not_know_of_each_other_are_not_taken_for_one() {
    let (mut one, mut other) = (limiter(&one_place()), limiter(&one_place()));
    assert!(!is_explained(&[enters((0, 2), 1, &mut one), enters((1, 3), 2, &mut other)]));
}

#[test]
fn of_overlapping_calls_either_may_have_been_the_first_but_never_one_that_began_after_the_end_of_another() {
    let placed = |first, second| {
        let mut limiter = limiter(&one_place());
        // The order of effect: what had a place was first.
        let calls = [enters(first, 1, &mut limiter), enters(second, 2, &mut limiter)];
        assert!(calls[0].what.1.came.is_ok() && calls[1].what.1.came.is_err());
        is_explained(&calls)
    };
    assert!(placed((0, 1), (2, 3)));
    assert!(placed((0, 2), (1, 3)));
    assert!(placed((1, 3), (0, 2)));
    assert!(!placed((2, 3), (0, 1)));
}

#[test]
fn of_many_at_one_instant_exactly_the_burst_is_admitted() {
    let shared = Mutex::new(limiter(&[rated("l", &[KeyPart::Global], rate(60, 60, 10))]));
    let count = || (0..100).filter(|_| ask(&mut shared.lock(), 1, &model(0), 0).is_ok()).count();
    let admitted: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(count)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(admitted, 10);
}
