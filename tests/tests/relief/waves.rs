//! Six pods under load that comes in waves: nobody flaps, and never more than two are out.

use std::f64::consts::PI;
use std::time::Duration;

use corral_sidecar::health::load::{LoadIndex, LoadSample, LoadSettings};
use corral_sidecar::health::relief::ReliefSettings;

use super::world::{Leader, Pod};

const PODS: usize = 6;
/// Time moves in steps of 100 ms; pods look at their load every five of them, and are called every twenty.
const STEP: Duration = Duration::from_millis(100);
const LOOK: u32 = 5;
const CALL: u32 = 20;
/// What a pod serves in a second.
const RATE: f64 = 2.0;
/// The most that wait in a pod, and the longest, in seconds.
const DEPTH: f64 = 10.0;
const WAIT: f64 = 10.0;

/// What a pod does with what comes: a queue of requests, in parts of one.
struct Queue {
    waiting: f64,
    refused: bool,
    index: LoadIndex,
}

/// What comes, in requests a second.
struct Wave {
    period: Duration,
    /// To the Service while the wave is high; split among the pods that are ready.
    shared: f64,
    /// To the first pods while the wave is high, whatever the Service says.
    bound: &'static [f64],
}

impl Wave {
    fn is_high(&self, now: Duration) -> bool {
        (now.as_secs_f64() / self.period.as_secs_f64() * 2.0 * PI).sin() >= 0.0
    }
}

struct Course {
    /// When each pod left.
    left: Vec<Vec<Duration>>,
    most_out: usize,
    /// Part of the time that each pod was out.
    out: Vec<f64>,
}

fn run(wave: &Wave, minutes: u64) -> Course {
    let mut pods: Vec<Pod> = (0..PODS).map(|pod| Pod::new(pod, ReliefSettings::default())).collect();
    let queue = || Queue { waiting: 0.0, refused: false, index: LoadIndex::new(LoadSettings::default()) };
    let mut queues: Vec<Queue> = (0..PODS).map(|_| queue()).collect();
    let mut leader = Leader::new(1, Duration::ZERO, PODS);
    let mut course = Course { left: vec![Vec::new(); PODS], most_out: 0, out: vec![0.0; PODS] };
    let steps = u32::try_from(minutes * 600).unwrap();
    for step in 0..steps {
        let now = STEP * step;
        arrive(wave, now, &pods, &mut queues);
        let news = leader.step(now);
        for number in 0..PODS {
            let (pod, queue) = (&mut pods[number], &mut queues[number]);
            let turn = step + u32::try_from(number).unwrap() * 3;
            if news || turn.is_multiple_of(CALL) {
                leader.call(now, pod);
            }
            let was_out = pod.is_out();
            if turn.is_multiple_of(LOOK) {
                look(now, pod, queue);
            }
            if pod.is_out() && !was_out {
                course.left[number].push(now);
            }
            course.out[number] += f64::from(u8::from(pod.is_out())) / f64::from(steps);
        }
        course.most_out = course.most_out.max(pods.iter().filter(|pod| pod.is_out()).count());
    }
    course
}

fn arrive(wave: &Wave, now: Duration, pods: &[Pod], queues: &mut [Queue]) {
    let ready: f64 = pods.iter().map(|pod| f64::from(u8::from(pod.is_ready()))).sum::<f64>().max(1.0);
    let high = wave.is_high(now);
    for (number, (pod, queue)) in pods.iter().zip(queues).enumerate() {
        let shared = if pod.is_ready() { wave.shared / ready } else { 0.0 };
        let comes = shared + wave.bound.get(number).copied().unwrap_or_default();
        let comes = if high { comes } else { 0.0 };
        let waiting = (queue.waiting + (comes - RATE) * STEP.as_secs_f64()).max(0.0);
        queue.refused |= waiting > DEPTH;
        queue.waiting = waiting.min(DEPTH);
    }
}

fn look(now: Duration, pod: &mut Pod, queue: &mut Queue) {
    let filled = queue.waiting / DEPTH;
    let load = if queue.waiting > 0.0 { filled.max(queue.waiting / RATE / WAIT) } else { 0.0 };
    let sample = LoadSample { queue: load, refused: queue.refused, ..LoadSample::default() };
    let index = queue.index.step(now.into(), sample);
    pod.load_permille = if index >= 1.0 { 1000 } else { 0 };
    pod.step(now, index, std::mem::take(&mut queue.refused), filled);
}

/// The most times that one pod left within any minute.
fn most_departures_a_minute(course: &Course) -> usize {
    let within = |times: &Vec<Duration>, from: Duration| {
        times.iter().filter(|at| **at >= from && **at < from + Duration::from_mins(1)).count()
    };
    let of = |times: &Vec<Duration>| times.iter().map(|from| within(times, *from)).max().unwrap_or_default();
    course.left.iter().map(of).max().unwrap_or_default()
}

/// A line of the table that `cargo verify` shows; nothing else does this, so nothing stands beside it.
fn print_row(number: &str, what: &str, goal: &str, ours: usize) {
    let nothing = " |        ".repeat(6);
    println!("| {number:>3} | {what:<54} | {goal:<11} | {ours:>7}{nothing} |");
}

#[test]
fn a_square_wave_of_one_hertz_makes_nobody_flap() {
    let (mut most_flaps, mut most_out) = (0, 0);
    for bound in [[4.1, 0.0].as_slice(), &[20.0, 0.0], &[8.0, 8.0], &[5.0; 6]] {
        let bound: &'static [f64] = bound.to_vec().leak();
        for shared in [0.0, 18.0] {
            let course = run(&Wave { period: Duration::from_secs(1), shared, bound }, 10);
            let flaps = most_departures_a_minute(&course);
            assert!(flaps <= 1, "{bound:?} {shared}: {:?}", course.left);
            assert!(course.most_out <= PODS / 3, "{bound:?} {shared}: {}", course.most_out);
            (most_flaps, most_out) = (most_flaps.max(flaps), most_out.max(course.most_out));
        }
    }
    print_row("11a", "six pods under a 1 Hz wave: departures of one a minute", "<= 1", most_flaps);
    print_row("11b", "six pods under a 1 Hz wave: out for their load at once", "<= 2", most_out);
}

#[test]
fn a_square_wave_of_a_minute_makes_a_pod_leave_at_most_once_a_wave() {
    for bound in [[6.0, 0.0].as_slice(), &[8.0, 8.0], &[8.0; 3], &[5.0; 6]] {
        let bound: &'static [f64] = bound.to_vec().leak();
        for shared in [0.0, 18.0] {
            let course = run(&Wave { period: Duration::from_mins(1), shared, bound }, 20);
            assert!(most_departures_a_minute(&course) <= 1, "{bound:?} {shared}: {:?}", course.left);
            assert!(course.most_out <= PODS / 3, "{bound:?} {shared}: {}", course.most_out);
        }
    }
}

#[test]
fn one_pod_that_gets_too_much_is_out_most_of_the_time_and_alone() {
    let wave = Wave { period: Duration::from_secs(1), shared: 6.0, bound: &[20.0] };
    let course = run(&wave, 10);
    assert!(course.out[0] > 0.85, "{:?}", course.out);
    assert!(course.out[1..].iter().all(|out| *out == 0.0), "{:?}", course.out);
}

#[test]
fn load_that_all_have_alike_makes_nobody_leave() {
    for shared in [60.0, 200.0] {
        let wave = Wave { period: Duration::from_hours(1), shared, bound: &[] };
        let course = run(&wave, 10);
        assert!(course.out.iter().sum::<f64>() < 0.2, "{shared}: {:?}", course.out);
    }
}
