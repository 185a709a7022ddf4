//! Law 5: what k threads see around one lock is what one thread would have seen in some order.

use std::{sync::Arc, thread};

use corral_limiter::{Limiter, Nanos};
use corral_wire::{KeyPart, LimitDoc};
use parking_lot::Mutex;

use crate::support::{ask, limit, limiter, model, rate, rated};

const THREADS: u32 = 4;

/// What one thread did to the limiter, with what came of it, in the order of the lock.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Did {
    Asked { client: u32, number: u64, admitted: bool },
    Abandoned { number: u64 },
    Finished { number: u64 },
}

fn limits() -> Vec<LimitDoc> {
    vec![
        rated("client", &[KeyPart::Client], rate(5, 1, 3)),
        rated("all", &[KeyPart::Global], rate(9, 1, 7)),
        LimitDoc { concurrency: Some(5), ..limit("held", &[KeyPart::Model]) },
    ]
}

#[test]
fn a_history_on_many_threads_is_one_of_a_single_thread() {
    let shared = Arc::new(Mutex::new((limiter(&limits()), Vec::<(u64, Did)>::new())));
    let workers: Vec<_> = (0..THREADS)
        .map(|worker| {
            let shared = shared.clone();
            thread::spawn(move || (0..250).for_each(|round| one_request(&shared, worker, round)))
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let (_, history) = &*shared.lock();
    let admitted = history.iter().filter(|(_, did)| matches!(did, Did::Asked { admitted: true, .. })).count();
    assert!(admitted > 7, "{admitted}");
    replay(history);
}

/// Asks under the lock and comes back for the rest: others ask in between.
fn one_request(shared: &Mutex<(Limiter, Vec<(u64, Did)>)>, worker: u32, round: u64) {
    let number = u64::from(worker) * 1_000_000 + round;
    let client = worker % 2;
    let ticket = {
        let (limiter, history) = &mut *shared.lock();
        let now = history.len() as u64 * 3_000_000;
        let ticket = ask(limiter, client, &model(0), now).ok();
        history.push((now, Did::Asked { client, number, admitted: ticket.is_some() }));
        ticket
    };
    thread::yield_now();
    if let Some(ticket) = ticket {
        let (limiter, history) = &mut *shared.lock();
        let now = history.len() as u64 * 3_000_000;
        if round.is_multiple_of(3) {
            limiter.abandon(ticket, Nanos(now));
            history.push((now, Did::Abandoned { number }));
        } else {
            limiter.finish(ticket, Nanos(now));
            history.push((now, Did::Finished { number }));
        }
    }
}

fn replay(history: &[(u64, Did)]) {
    let mut alone = limiter(&limits());
    let mut tickets = std::collections::HashMap::new();
    for (now, did) in history {
        match *did {
            Did::Asked { client, number, admitted } => {
                let ticket = ask(&mut alone, client, &model(0), *now).ok();
                assert_eq!(ticket.is_some(), admitted);
                tickets.extend(ticket.map(|ticket| (number, ticket)));
            }
            Did::Abandoned { number } => alone.abandon(tickets.remove(&number).unwrap(), Nanos(*now)),
            Did::Finished { number } => alone.finish(tickets.remove(&number).unwrap(), Nanos(*now)),
        }
    }
    assert!(tickets.is_empty());
}

#[test]
fn of_many_at_one_instant_exactly_the_burst_is_admitted() {
    let shared = Arc::new(Mutex::new(limiter(&[rated("l", &[KeyPart::Global], rate(60, 60, 10))])));
    let admitted: usize = (0..THREADS)
        .map(|_| {
            let shared = shared.clone();
            let count = move || (0..100).filter(|_| ask(&mut shared.lock(), 1, &model(0), 0).is_ok()).count();
            thread::spawn(count)
        })
        .collect::<Vec<_>>()
        .into_iter()
        .map(|worker| worker.join().unwrap())
        .sum();
    assert_eq!(admitted, 10);
}
