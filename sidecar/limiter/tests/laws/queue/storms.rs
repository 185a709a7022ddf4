//! Clients that mean no good, or know no better: they change who they are, queue and leave at once, have weights that are
//! none; and plans that change while all of them wait.

use corral_limiter::{
    Nanos,
    queue::{
        Arrival, Due, FairQueue, FlowKey, Priority, QueueBounds, QueueGauges, Runner, ShedReason, Slots,
        WaiterId, Wish,
    },
};

use super::events::COST;
use crate::support::{SECOND, model};

fn bounds(max_depth: u32, own: u32) -> QueueBounds {
    let minute = Nanos(60 * SECOND);
    QueueBounds { max_depth, max_depth_per_client: own, max_wait: minute, batch_max_wait: minute }
}

fn queue(slots: u32, bounds: QueueBounds) -> (FairQueue, Runner) {
    let mut queue = FairQueue::new(Slots { per_model: slots, models: 1 });
    queue.set_bounds(bounds);
    (queue, Runner::of(&model(0)))
}

fn wish(runner: &Runner, client: u128) -> Wish<'_> {
    Wish { flow: FlowKey(client), cost: COST, ..Wish::slot(runner) }
}

/// Each request of the attacker is somebody new; the honest client is one, who comes again when it was served. In fair order
/// nobody new overtakes one who waits already.
#[test]
fn a_million_identities_are_bounded_and_the_honest_client_is_served_again_and_again() {
    let (mut queue, runner) = queue(2, bounds(64, 8));
    let is_honest = |id: WaiterId| id.0 > u64::MAX / 2;
    let (mut running, mut honest, mut came, mut longest) = (Vec::new(), 0, None, 0);
    for number in 0..1_000_000u64 {
        let now = Nanos(number * 1000);
        let mut started = Vec::new();
        let mut arrive = |id: WaiterId, wish| {
            let arrived = queue.arrive(id, wish, now);
            let arrival = arrived.map(|arrived| arrived.arrival);
            started.extend((arrival == Ok(Arrival::Start)).then_some(id));
            arrival.is_ok()
        };
        arrive(WaiterId(number), wish(&runner, 7_000 + u128::from(number)));
        if came.is_none() && arrive(WaiterId(u64::MAX - number), Wish { cost: COST / 2, ..wish(&runner, 1) })
        {
            came = Some(number);
        }
        // One in four is served.
        if number % 4 == 0 && !running.is_empty() {
            queue.release(running.remove(0), COST, now);
        }
        started.extend(queue.dispatch(now, |_| true).started);
        if started.iter().any(|id| is_honest(*id)) {
            honest += 1;
            longest = longest.max(number - came.take().unwrap());
        }
        running.extend(started);
        queue.loaded(&runner, now);
        assert!(running.len() <= 2);
        assert!(number % 64 != 0 || queue.gauges(now).flows <= 200, "idle flows are kept");
    }
    // 64 wait at most, one in four is served, and what the honest client had is half of what each other gets; virtual time
    // stands still for as long as one cost of each of them.
    assert!(longest <= 4 * 3 * 66, "it waited while {longest} came");
    assert!(honest >= 1_000_000 / (4 * 3 * 66), "{honest} of the honest client were served");
}

#[test]
fn flows_are_bounded_though_none_is_idle() {
    let (mut queue, runner) = queue(1, bounds(20_000, 20_000));
    for number in 0..20_000u64 {
        queue
            .arrive(WaiterId(number), wish(&runner, u128::from(number) << 64 | u128::from(number)), Nanos(1))
            .unwrap();
    }
    let gauges = queue.gauges(Nanos(1));
    assert_eq!(gauges.depth + gauges.in_flight, 20_000);
    assert!(gauges.flows <= 10_256, "{}", gauges.flows);
    for number in 0..20_000 {
        queue.leave(WaiterId(number), Nanos(2));
        let _started = queue.dispatch(Nanos(2), |_| true);
    }
    assert_eq!(queue.gauges(Nanos(2)), QueueGauges::default());
}

/// One client comes and goes a thousand times a second; it costs those who stay nothing.
#[test]
fn who_queues_and_leaves_again_and_again_leaves_nothing_behind_and_delays_nobody() {
    let serve = |storms: bool| {
        let (mut queue, runner) = queue(1, bounds(64, 32));
        let (mut served, mut running) = (Vec::new(), None);
        for number in 0..10_000u64 {
            let now = Nanos(number * 1_000_000);
            if number % 10 == 0 {
                let arrived = queue.arrive(WaiterId(number), wish(&runner, 1), now).unwrap();
                running = running.or((arrived.arrival == Arrival::Start).then_some(WaiterId(number)));
            }
            if storms {
                let id = WaiterId(1_000_000 + number);
                let arrived = queue.arrive(id, wish(&runner, 2), now);
                queue.leave(id, now);
                assert!(arrived.is_ok_and(|arrived| arrived.pushed_out.is_empty()));
            }
            if number % 7 == 0
                && let Some(id) = running.take()
            {
                queue.release(id, COST, now);
                served.push((id, now));
            }
            let started = queue.dispatch(now, |_| true).started;
            running = running.or(started.first().copied());
        }
        let left = queue.gauges(Nanos(10_000_000_000));
        assert!(left.flows <= 1 && left.depth <= 1, "{left:?}");
        served
    };
    assert_eq!(serve(false), serve(true));
}

/// Zero counts as one, and no weight for more than a thousand: nobody starves.
#[test]
fn no_weight_starves_anybody() {
    let (mut queue, runner) = queue(1, bounds(64, 32));
    let (mut served, mut waiting, mut last, mut running) = ([0u32; 2], [0u32; 2], 0, None);
    for _ in 0..20_000 {
        let now = Nanos(last);
        for (client, weight) in [(0, 0), (1, u32::MAX)] {
            while waiting[client] < 3 {
                (last, waiting[client]) = (last + 1, waiting[client] + 1);
                let wish = Wish { weight, is_pending: true, ..wish(&runner, client as u128) };
                queue.arrive(WaiterId(last * 2 + client as u64), wish, now).unwrap();
            }
        }
        let started = queue.dispatch(now, |_| true).started;
        queue.loaded(&runner, now);
        running = running.or(started.first().copied());
        if let Some(id) = running.take() {
            let client = usize::try_from(id.0 % 2).unwrap();
            (served[client], waiting[client]) = (served[client] + 1, waiting[client] - 1);
            queue.release(id, COST, now);
        }
    }
    assert!((18..=22).contains(&served[0]), "one in a thousand: {served:?}");
}

/// Twenty wait; the plan and what Ollama shows change again and again; each of them is served, in its order.
#[test]
fn plans_that_change_while_people_wait_lose_nobody() {
    let (mut queue, runner) = queue(3, bounds(64, 64));
    let mut running: Vec<WaiterId> = Vec::new();
    for number in 0..20 {
        let arrived =
            queue.arrive(WaiterId(number), wish(&runner, u128::from(number % 4)), Nanos(1)).unwrap();
        running.extend((arrived.arrival == Arrival::Start).then_some(WaiterId(number)));
        queue.loaded(&runner, Nanos(1));
    }
    let mut order = running.clone();
    for round in 0..200u32 {
        let now = Nanos(2 + u64::from(round));
        queue.set_bounds(bounds(round % 3, round % 2));
        queue.set_slots(Slots { per_model: round % 5, models: round % 3 });
        queue.set_cap(&runner.model, (round % 2 == 0).then_some(round % 4));
        if let Some(id) = (round % 3 == 0).then(|| running.pop()).flatten() {
            queue.release(id, COST, now);
        }
        let started = queue.dispatch(now, |_| true).started;
        running.extend(started.iter());
        order.extend(started);
    }
    assert_eq!(order.len(), 20);
    for client in 0..4 {
        let own: Vec<_> = order.iter().filter(|id| id.0 % 4 == client).collect();
        assert!(own.is_sorted(), "{own:?}");
    }
}

#[test]
fn an_answer_that_comes_too_late_for_its_client_is_not_begun() {
    let (mut queue, runner) = queue(1, bounds(64, 32));
    let with = |at: u64, needs: u64| Wish {
        due: Some(Due { at: Nanos(at * SECOND), needs: Nanos(needs * SECOND) }),
        ..wish(&runner, 1)
    };
    assert_eq!(queue.arrive(WaiterId(1), with(100, 10), Nanos(0)).unwrap().arrival, Arrival::Start);
    let Arrival::Wait { deadline } = queue.arrive(WaiterId(2), with(40, 30), Nanos(0)).unwrap().arrival
    else {
        panic!()
    };
    assert!(
        deadline <= Nanos(20 * SECOND),
        "it waits no longer than a part of what its client does: {deadline:?}"
    );
    assert!(queue.arrive(WaiterId(3), with(40, 5), Nanos(0)).is_ok());
    queue.loaded(&runner, Nanos(0));
    queue.release(WaiterId(1), COST, Nanos(11 * SECOND));
    let done = queue.dispatch(Nanos(11 * SECOND), |_| true);
    assert_eq!(done.started.as_slice(), [WaiterId(3)]);
    let late: Vec<_> = done.late.iter().map(|(id, shed)| (*id, shed.reason)).collect();
    assert_eq!(late, [(WaiterId(2), ShedReason::DeadlineMissed)]);
}

/// Nobody is more urgent than another by its own word alone, so a flood of the least urgent pushes out its own.
#[test]
fn a_flood_pushes_out_its_own_and_nobody_who_is_more_urgent_or_has_less() {
    let (mut queue, runner) = queue(1, bounds(10, 10));
    queue.arrive(WaiterId(0), wish(&runner, 0), Nanos(0)).unwrap();
    let of = |client, priority| Wish { priority, ..wish(&runner, client) };
    queue.arrive(WaiterId(1), of(1, Priority::High), Nanos(0)).unwrap();
    queue.arrive(WaiterId(2), of(2, Priority::Low), Nanos(0)).unwrap();
    for number in 10..18 {
        queue.arrive(WaiterId(number), of(3, Priority::Low), Nanos(0)).unwrap();
    }
    let refused = queue.arrive(WaiterId(18), of(3, Priority::Low), Nanos(0)).unwrap_err();
    assert_eq!(refused.reason, ShedReason::QueueFull);
    let arrived = queue.arrive(WaiterId(19), of(4, Priority::Low), Nanos(0)).unwrap();
    assert_eq!(
        arrived.pushed_out.iter().map(|(id, _)| id.0).collect::<Vec<_>>(),
        [17],
        "the newest of the largest"
    );
    let arrived = queue.arrive(WaiterId(20), of(1, Priority::High), Nanos(0)).unwrap();
    assert_eq!(arrived.pushed_out.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [16]);
    assert_eq!(queue.gauges(Nanos(0)).depth, 10);
}
