//! The line of requests that are held: who is next, and how much of it may be whose. Pure.
//!
//! The more urgent goes first, and of two alike the one that came first. It is no fair queue: that one shares out slots,
//! and the pod that a request goes to does so a moment later. What is fair here is the bound on one client.

use std::collections::{BTreeMap, HashMap};

use corral_limiter::Nanos;
use corral_limiter::queue::{FlowKey, Priority};

/// One client holds at most one in so many of the requests and of the bytes.
const CLIENT_SHARE: u32 = 4;

/// How much may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) requests: u32,
    pub(super) bytes: u64,
}

/// Who asks to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) flow: FlowKey,
    pub(super) priority: Priority,
    /// Bytes of its body.
    pub(super) bytes: u64,
}

/// A place in the order of all requests that ever came; of two the lesser goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    priority: Priority,
    number: u64,
}

/// Whose bound is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// That of one client.
    Client,
    /// That of all.
    All,
}

/// Those that wait, each with what tells it that its wait is over.
#[derive(Debug)]
pub(super) struct Line<T> {
    waiting: BTreeMap<Place, Waiting<T>>,
    /// Only clients of whom something waits.
    clients: HashMap<FlowKey, Room>,
    bytes: u64,
    numbers: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    ask: Ask,
    since: Nanos,
    tell: T,
}

impl<T> Line<T> {
    pub(super) fn new() -> Self {
        Self { waiting: BTreeMap::new(), clients: HashMap::new(), bytes: 0, numbers: 0 }
    }

    /// The place of one that comes now, whether it has to wait or not.
    pub(super) fn place(&mut self, priority: Priority) -> Place {
        self.numbers += 1;
        Place { priority, number: self.numbers }
    }

    /// Whether there is room for one more.
    pub(super) fn admits(&self, ask: &Ask, room: Room) -> Result<(), NoRoom> {
        if room.requests <= self.requests() || room.bytes < self.bytes.saturating_add(ask.bytes) {
            return Err(NoRoom::All);
        }
        let own = self.clients.get(&ask.flow).copied().unwrap_or(Room { requests: 0, bytes: 0 });
        let most = (room.requests / CLIENT_SHARE).max(1);
        let most_bytes = room.bytes / u64::from(CLIENT_SHARE);
        // However little room there is, one request of a client has as much as there is of it.
        let fits = own.requests == 0 || own.bytes.saturating_add(ask.bytes) <= most_bytes;
        if own.requests < most && fits { Ok(()) } else { Err(NoRoom::Client) }
    }

    /// Makes room for one more where there is none: the newest of the client that holds most goes, if it holds more than
    /// twice what the newcomer's would and is not more urgent. So a few that were first do not close the line to all
    /// others. Who goes is handed back, to be told.
    pub(super) fn make_room(&mut self, ask: &Ask, room: Room) -> Result<Vec<T>, NoRoom> {
        let mut gone = Vec::new();
        while let Err(in_the_way) = self.admits(ask, room) {
            match self.gives_way(ask, room).filter(|_| in_the_way == NoRoom::All) {
                Some(place) => gone.extend(self.leave(place)),
                None => return Err(in_the_way),
            }
        }
        Ok(gone)
    }

    /// Whose place could be had.
    fn gives_way(&self, ask: &Ask, room: Room) -> Option<Place> {
        let own = self.clients.get(&ask.flow).copied().unwrap_or(Room { requests: 0, bytes: 0 });
        let of_requests = room.requests <= self.requests();
        let share = |of: &Room| if of_requests { u64::from(of.requests) } else { of.bytes };
        let wanted = if of_requests { u64::from(own.requests) + 1 } else { own.bytes + ask.bytes };
        let (largest, most) = self.clients.iter().max_by_key(|(_, of)| share(of))?;
        if wanted.saturating_mul(2) > share(most) {
            return None;
        }
        let (place, _) = self.waiting.iter().rev().find(|(_, waiting)| waiting.ask.flow == *largest)?;
        (place.priority >= ask.priority).then_some(*place)
    }

    /// Puts one at its place, be it for the first time or again.
    pub(super) fn put(&mut self, place: Place, ask: Ask, since: Nanos, tell: T) {
        let own = self.clients.entry(ask.flow).or_insert(Room { requests: 0, bytes: 0 });
        own.requests += 1;
        own.bytes += ask.bytes;
        self.bytes += ask.bytes;
        self.waiting.insert(place, Waiting { ask, since, tell });
    }

    /// Takes one out; none if it does not wait any more.
    pub(super) fn leave(&mut self, place: Place) -> Option<T> {
        let Waiting { ask, tell, .. } = self.waiting.remove(&place)?;
        self.bytes -= ask.bytes;
        if let Some(own) = self.clients.get_mut(&ask.flow) {
            own.requests -= 1;
            own.bytes -= ask.bytes;
            if own.requests == 0 {
                self.clients.remove(&ask.flow);
            }
        }
        Some(tell)
    }

    /// Takes out who is next.
    pub(super) fn next(&mut self) -> Option<T> {
        let place = *self.waiting.keys().next()?;
        self.leave(place)
    }

    /// Takes all out. Dropped, what tells them says that they wait for nothing.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.clients.clear();
        self.bytes = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn requests(&self) -> u32 {
        u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Since when the one waits that has waited longest.
    pub(super) fn oldest(&self) -> Option<Nanos> {
        self.waiting.values().map(|waiting| waiting.since).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: Room = Room { requests: 8, bytes: 800 };

    fn ask(client: u128, priority: Priority, bytes: u64) -> Ask {
        Ask { flow: FlowKey(client), priority, bytes }
    }

    fn come(line: &mut Line<u32>, ask: Ask, name: u32) -> Result<Place, NoRoom> {
        line.admits(&ask, ROOM)?;
        let place = line.place(ask.priority);
        line.put(place, ask, Nanos::from_secs(u64::from(name)), name);
        Ok(place)
    }

    #[test]
    fn the_more_urgent_goes_first_and_of_two_alike_the_one_that_came_first() {
        let mut line = Line::new();
        let come_as = [Priority::Low, Priority::Medium, Priority::Critical, Priority::Medium, Priority::High];
        for (name, priority) in (0..).zip(come_as) {
            come(&mut line, ask(u128::from(name), priority, 1), name).unwrap();
        }
        assert_eq!(line.oldest(), Some(Nanos::ZERO));
        let order: Vec<u32> = std::iter::from_fn(|| line.next()).collect();
        assert_eq!(order, [2, 4, 1, 3, 0]);
        assert_eq!((line.requests(), line.bytes(), line.oldest()), (0, 0, None));
    }

    #[test]
    fn one_that_comes_back_has_the_place_it_had() {
        let mut line = Line::new();
        let first = ask(1, Priority::Medium, 1);
        let place = come(&mut line, first, 1).unwrap();
        come(&mut line, ask(2, Priority::Medium, 1), 2).unwrap();
        assert_eq!(line.next(), Some(1));
        line.put(place, first, Nanos::ZERO, 1);
        assert_eq!(line.next(), Some(1));
    }

    #[test]
    fn one_client_has_a_quarter_of_the_requests_and_of_the_bytes_and_others_have_the_rest() {
        let mut line = Line::new();
        let come_of = |line: &mut Line<u32>, client, bytes| {
            come(line, ask(client, Priority::Medium, bytes), 0).map(|_| ())
        };
        assert_eq!([1, 1].map(|bytes| come_of(&mut line, 1, bytes)), [Ok(()), Ok(())]);
        assert_eq!(come_of(&mut line, 1, 1), Err(NoRoom::Client), "two of eight are a quarter");
        assert_eq!(come_of(&mut line, 2, 150), Ok(()));
        assert_eq!(come_of(&mut line, 2, 51), Err(NoRoom::Client), "200 of 800 bytes are a quarter");
        assert_eq!(come_of(&mut line, 2, 50), Ok(()));
        assert_eq!(come_of(&mut line, 3, 500), Ok(()), "one alone may be larger");
        assert_eq!(come_of(&mut line, 4, 99), Err(NoRoom::All), "no bytes are left");
        assert_eq!(come_of(&mut line, 4, 98), Ok(()));
        assert_eq!([5, 6].map(|client| come_of(&mut line, client, 0)), [Ok(()), Ok(())]);
        assert_eq!(come_of(&mut line, 7, 0), Err(NoRoom::All), "no requests are left");
    }

    #[test]
    fn where_a_quarter_is_less_than_one_a_client_has_one() {
        let line = Line::<u32>::new();
        let small = Room { requests: 2, bytes: 10 };
        assert_eq!(line.admits(&ask(1, Priority::Medium, 10), small), Ok(()));
        assert_eq!(line.admits(&ask(1, Priority::Medium, 11), small), Err(NoRoom::All));
        let none = Room { requests: 0, bytes: 0 };
        assert_eq!(line.admits(&ask(1, Priority::Medium, 0), none), Err(NoRoom::All));
    }

    #[test]
    fn clients_that_were_first_do_not_close_the_line_to_the_others() {
        let mut line = Line::new();
        let large = Room { requests: 16, bytes: 1600 };
        for number in 0..16_u32 {
            let ask = ask(u128::from(number / 4), Priority::Medium, 1);
            let place = line.place(ask.priority);
            line.put(place, ask, Nanos::ZERO, number);
        }
        assert_eq!(line.admits(&ask(9, Priority::Medium, 1), large), Err(NoRoom::All));
        assert_eq!(
            line.make_room(&ask(0, Priority::Medium, 1), large),
            Err(NoRoom::All),
            "it has its quarter"
        );
        assert_eq!(
            line.make_room(&ask(9, Priority::Low, 1), large),
            Err(NoRoom::All),
            "others are more urgent"
        );
        let gone = line.make_room(&ask(9, Priority::Medium, 1), large).unwrap();
        assert!(gone.len() == 1 && gone[0] % 4 == 3, "the newest of one of the four: {gone:?}");
        assert_eq!(line.make_room(&ask(9, Priority::Medium, 1), large), Ok(vec![]), "there is room now");
    }

    #[test]
    fn bytes_are_shared_out_alike() {
        let mut line = Line::new();
        let put = |line: &mut Line<u32>, client, bytes, name| {
            let ask = ask(client, Priority::Medium, bytes);
            let place = line.place(ask.priority);
            line.put(place, ask, Nanos::ZERO, name);
        };
        put(&mut line, 1, 400, 1);
        put(&mut line, 1, 400, 2);
        assert_eq!(line.make_room(&ask(2, Priority::Medium, 401), ROOM), Err(NoRoom::All));
        assert_eq!(line.make_room(&ask(2, Priority::Medium, 100), ROOM), Ok(vec![2]));
    }

    proptest! {
        #[test]
        fn whatever_happens_the_bounds_hold_and_nothing_is_kept_of_those_that_left(
            steps in proptest::collection::vec((0u128..4, 0u64..300, any::<bool>(), 0usize..16), 1..200)
        ) {
            let mut line = Line::new();
            let mut places = Vec::new();
            for (client, bytes, comes, which) in steps {
                if comes {
                    places.extend(come(&mut line, ask(client, Priority::Medium, bytes), 0));
                } else if !places.is_empty() {
                    let place = places.remove(which % places.len());
                    prop_assert!(line.leave(place).is_some());
                    prop_assert!(line.leave(place).is_none());
                }
                prop_assert!(line.requests() <= ROOM.requests && line.bytes() <= ROOM.bytes);
                prop_assert!(line.clients.values().all(|own| own.requests <= 2));
                prop_assert!(line.clients.values().all(|own| own.requests == 1 || own.bytes <= 200));
                prop_assert_eq!(line.requests() as usize, places.len());
            }
            while line.next().is_some() {}
            prop_assert!(line.clients.is_empty() && line.bytes() == 0);
        }
    }
}
