//! From the client to a slot: load balancers that hear late who is ready, and pick at random.

use std::time::Duration;

use crate::agenda::{Event, Request, between};
use crate::world::{Line, World};

/// Who is turned away comes again after so many seconds, give or take a fifth.
const RETRY: f64 = 10.0;

impl World<'_> {
    /// What the load balancers hear last of a pod.
    pub(crate) fn list(&mut self, number: usize) {
        let pod = &mut self.pods[number];
        let belongs = pod.ready.get() && pod.terminating.is_none();
        if belongs == pod.listed {
            return;
        }
        pod.listed = belongs;
        if belongs {
            self.listed.push(number);
            self.outcome.relisted.push(self.agenda.now);
            self.help_out(number);
        } else {
            self.listed.retain(|listed| *listed != number);
        }
    }

    /// A client connects: to any that is listed, the activator too while it stands in.
    pub(crate) fn send(&mut self, request: Request) {
        let all = self.listed.len() + usize::from(self.holder.listed);
        let picked = if all > 0 { self.chances.balancer.below(all) } else { 0 };
        match self.listed.get(picked).copied() {
            Some(number) if !self.pods[number].gone => self.arrive(number, request),
            None if all > 0 => self.hold(request),
            _ => self.refuse(request),
        }
    }

    /// Nobody takes the connection.
    fn refuse(&mut self, request: Request) {
        self.outcome.refused += 1;
        self.returns(request);
    }

    fn returns(&mut self, request: Request) {
        let wait = RETRY * (0.8 + 0.4 * self.chances.clients.unit());
        self.agenda.after(Duration::from_secs_f64(wait), Event::Returns(Request { again: true, ..request }));
    }

    pub(crate) fn arrive(&mut self, number: usize, request: Request) {
        let slots = self.setting.slots;
        let pod = &mut self.pods[number];
        pod.counters.arrivals += 1;
        pod.counters.retries += u64::from(request.again);
        if pod.in_flight < slots {
            return self.start(number, request);
        }
        match self.setting.line {
            Line::Own { depth, .. } if pod.queued() >= depth => self.turn_away(number, request),
            line => self.wait(number, request, line),
        }
    }

    fn wait(&mut self, number: usize, request: Request, line: Line) {
        let now = self.now();
        self.pods[number].line.push_back((now, request));
        self.waiting += 1;
        if let Line::Own { longest, .. } = line {
            self.agenda.after(longest, Event::TimesOut { pod: number, number: request.number });
        } else if let Some(free) = self.free() {
            self.help_out(free);
        }
    }

    /// A ready pod with a free slot.
    fn free(&self) -> Option<usize> {
        let has_room =
            |number: &usize| self.pods[*number].in_flight < self.setting.slots && !self.pods[*number].gone;
        self.listed.iter().copied().find(has_room)
    }

    fn turn_away(&mut self, number: usize, request: Request) {
        self.outcome.turned_away += 1;
        self.pods[number].counters.capacity_rejects += 1;
        self.returns(request);
    }

    pub(crate) fn time_out(&mut self, number: usize, request: u64) {
        let line = &mut self.pods[number].line;
        let Some(at) = line.iter().position(|(_, waiting)| waiting.number == request) else { return };
        let Some((_, request)) = line.remove(at) else { return };
        self.waiting -= 1;
        self.turn_away(number, request);
    }

    fn start(&mut self, number: usize, request: Request) {
        let now = self.now();
        self.pods[number].in_flight += 1;
        self.outcome.waits.push((request.came, between(request.came, now)));
        self.agenda.after(request.service, Event::Ends { pod: number, request });
    }

    pub(crate) fn end(&mut self, number: usize, request: Request) {
        let pod = &mut self.pods[number];
        if pod.gone {
            return;
        }
        pod.in_flight -= 1;
        pod.counters.completions += 1;
        pod.counters.slot_millis += u64::try_from(request.service.as_millis()).unwrap();
        self.outcome.served += 1;
        if let Some((_, next)) = self.pods[number].line.pop_front() {
            self.waiting -= 1;
            self.start(number, next);
        } else {
            self.help_out(number);
        }
        if self.pods[number].terminating.is_some() {
            self.drained(number);
        }
    }

    /// Where there is one line for all: a pod with free slots takes from it.
    fn help_out(&mut self, number: usize) {
        let shares = self.setting.line == Line::Common && self.pods[number].listed;
        while shares && self.waiting > 0 && self.pods[number].in_flight < self.setting.slots {
            let next = self.longest_line().and_then(|from| self.pods[from].line.pop_front());
            let Some((_, next)) = next else { return };
            self.waiting -= 1;
            self.start(number, next);
        }
    }
}
