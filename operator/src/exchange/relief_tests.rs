use super::*;

const LED: Duration = Duration::from_mins(1);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Pods by a letter each: `.` ready, `w` wants, `o` out, `a` away, `l` loaded, `t` terminating and wants.
fn pods(letters: &str) -> Vec<PodLoad> {
    let pod = |(place, letter): (usize, char)| PodLoad {
        uid: place.to_string(),
        terminating: letter == 't',
        away: letter == 'a',
        relief: match letter {
            'w' | 't' => Relief::Wanted,
            'o' => Relief::Taken,
            _ => Relief::Unneeded,
        },
        loaded: "lwot".contains(letter),
    };
    letters.chars().enumerate().map(pod).collect()
}

/// A leader with what it permitted, second by second.
#[derive(Default)]
struct Leader {
    permits: Permits,
    now: u64,
}

impl Leader {
    /// Says it to every pod at once, and hears every pod obey.
    fn tell(&mut self, letters: &str) -> String {
        let pods = pods(letters);
        let who = self.look(letters);
        for pod in pods.iter().filter(|pod| !pod.away) {
            if self.permits.permits(&pod.uid) {
                self.permits.said(&pod.uid, at(self.now));
            } else {
                self.permits.taken_back(&pod.uid);
            }
        }
        who
    }

    /// Says nothing, and hears nothing.
    fn look(&mut self, letters: &str) -> String {
        self.now += 1;
        let permitted = self.permits.step(at(self.now), LED, &pods(letters));
        permitted.iter().map(String::as_str).collect()
    }
}

#[test]
fn a_third_of_the_pods_may_be_out_and_of_one_or_two_none() {
    for (letters, who) in
        [("w", ""), ("w.", ""), ("w..", "0"), ("w....", "0"), ("ww...", "0"), ("..w.w.", "2")]
    {
        assert_eq!(Leader::default().tell(letters), who, "{letters}");
    }
    let mut six = Leader::default();
    six.tell("..w.w.");
    assert_eq!(six.tell("..o.w."), "24");
    assert_eq!(six.tell("w.o.o."), "24");
}

#[test]
fn pods_that_are_away_for_another_reason_leave_less_room() {
    assert_eq!(Leader::default().tell("w..a"), "");
    assert_eq!(Leader::default().tell("w....a"), "0");
    let mut six = Leader::default();
    six.tell("ww....");
    assert_eq!(six.tell("ow...."), "01");
    assert_eq!(six.tell("oo...a"), "0", "the last to get it loses it first");
    assert_eq!(six.tell("oo..aa"), "");
}

#[test]
fn those_who_wait_longest_come_first() {
    let mut six = Leader::default();
    assert_eq!(six.tell("aa...w"), "", "no room yet");
    assert_eq!(six.tell("aa..ww"), "");
    assert_eq!(six.tell("....ww"), "5");
    assert_eq!(six.tell("....wo"), "45");
}

#[test]
fn a_new_leader_permits_nothing_in_its_first_ten_seconds() {
    let mut permits = Permits::default();
    assert!(permits.step(at(0), at(0), &pods("w..")).is_empty());
    assert!(permits.step(at(9), at(9), &pods("w..")).is_empty());
    assert_eq!(permits.step(at(10), at(10), &pods("w..")).len(), 1);
}

#[test]
fn when_all_are_loaded_nobody_leaves() {
    for (letters, who) in
        [("wwww", ""), ("wll.", ""), ("wl..", "0"), ("ww..", "0"), ("wlll...", ""), ("wll....", "0")]
    {
        assert_eq!(Leader::default().tell(letters), who, "{letters}");
    }
    let mut four = Leader::default();
    four.tell("w...");
    assert_eq!(four.tell("olll"), "0", "who is out may stay");
}

#[test]
fn when_fewer_than_half_are_ready_all_come_back() {
    let mut leader = Leader::default();
    leader.tell("w........");
    assert_eq!(leader.tell("o........"), "0");
    assert_eq!(leader.tell("oaaaaa..."), "");
    assert_eq!(room(&pods("oooo..")), 0, "more are out than should be");
}

#[test]
fn a_terminating_pod_is_neither_counted_nor_permitted() {
    assert_eq!(Leader::default().tell("t.."), "");
    assert_eq!(Leader::default().tell("wt."), "");
    assert_eq!(Leader::default().tell("wt.."), "0");
}

#[test]
fn who_needs_it_no_more_makes_room_only_once_it_has_heard() {
    let mut three = Leader::default();
    three.tell("w..");
    three.tell("o..");
    assert_eq!(three.look(".w."), "", "it may still want it again, and leave");
    assert_eq!(three.look("ww."), "");
    three.tell("...");
    assert_eq!(three.tell(".w."), "1");
}

#[test]
fn an_unanswered_permission_is_held_for_its_lease_and_the_longest_call() {
    let mut three = Leader::default();
    three.tell("w..");
    for _ in 0..11 {
        assert_eq!(three.look(".w."), "");
    }
    assert_eq!(three.look(".w."), "1");
}
