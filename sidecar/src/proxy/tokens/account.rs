//! The account of one request: what its answer has cost so far, and what it comes to in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use corral_limiter::Nanos;
use corral_wire::CostModel;

use super::edit::Edit;
use super::learned::{Lesson, Spell, to_f64, to_u64};
use super::meter::{Heard, Meter};
use super::reckon::{Reckoning, share};
use super::strip::Strip;
use crate::proxy::Proxy;
use crate::proxy::admission::Permit;
use crate::proxy::models::Times;

/// After so many tokens of an answer, what goes beyond its reservation is charged.
const STEP: u64 = 256;

/// The tokens that a request has been charged so far, for its record.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    input: AtomicU64,
    output: AtomicU64,
}

impl Spent {
    /// Tokens of the prompt, and of the answer.
    pub(crate) fn get(&self) -> (u64, u64) {
        (self.input.load(Ordering::Relaxed), self.output.load(Ordering::Relaxed))
    }

    fn set(&self, input: u64, output: u64) {
        self.input.store(input, Ordering::Relaxed);
        self.output.store(output, Ordering::Relaxed);
    }
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// In order.
    Complete,
    /// Its client left.
    Left,
    /// It broke off, for whatever reason that is not the client's.
    Broken,
    /// Ollama refused it, 4xx: no token was worked on.
    Refused,
}

/// The account of one request.
#[derive(Debug)]
pub(crate) struct Account {
    reckoning: Reckoning,
    spent: Arc<Spent>,
    /// Once an answer has begun.
    meter: Option<Meter>,
    strip: Option<Strip>,
    /// Tokens of the answer that the limits know of.
    told: u64,
    /// Of a request in parts: tokens of those that are done.
    done: Option<u64>,
}

impl Account {
    /// Opens one.
    pub(crate) fn new(reckoning: Reckoning, spent: Arc<Spent>) -> Self {
        Self { reckoning, spent, meter: None, strip: None, told: 0, done: None }
    }

    /// What is to be changed in the body.
    pub(crate) fn edits(&self) -> &[Edit] {
        self.reckoning.edits()
    }

    /// What the request will probably cost the queue.
    pub(crate) fn queue_cost(&self, model: CostModel) -> u64 {
        self.reckoning.cost(model)
    }

    /// What some of its inputs will probably cost the queue.
    pub(crate) fn cost_of(&self, inputs: usize, of: usize, model: CostModel) -> u64 {
        self.reckoning.cost_of(inputs, of, model)
    }

    /// How many tokens some of its inputs probably have.
    pub(crate) fn estimate_of(&self, inputs: usize, of: usize) -> u64 {
        share(self.reckoning.estimate().input, inputs, of)
    }

    /// Of a request in parts: so many tokens are done. They are what it is charged, unless it is completed.
    pub(crate) fn part(&mut self, tokens: u64) {
        self.done = Some(tokens);
        self.spent.set(tokens, 0);
    }

    /// Settles what is done so far.
    pub(crate) fn settle_part(&self, permit: &mut Permit) {
        permit.settle(self.done.unwrap_or_default(), 0);
    }

    /// An answer begins, as a stream or not. Says whether bytes may be taken out of it.
    pub(crate) fn begin(&mut self, stream: bool) -> bool {
        self.meter = Some(Meter::new(self.reckoning.dialect, stream));
        self.strip = (stream && self.reckoning.hides_usage).then(Strip::default);
        self.strip.is_some()
    }

    /// Bytes of it go by; what is returned goes on to the client.
    pub(crate) fn see(&mut self, data: Bytes, permit: &mut Permit) -> Bytes {
        if let Some(meter) = &mut self.meter {
            meter.see(&data);
            let heard = *meter.heard();
            self.note(&heard, permit);
        }
        match &mut self.strip {
            None => data,
            Some(strip) => strip.pass(data),
        }
    }

    /// What was kept back when it ended in the middle of a line.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.strip.as_mut().map_or_else(Bytes::new, Strip::rest)
    }

    /// Tells the limits and the queue now and then how far it is, and at once when Ollama has counted.
    fn note(&mut self, heard: &Heard, permit: &mut Permit) {
        let (input, so_far) = (self.input(heard), heard.so_far());
        self.spent.set(input, so_far);
        let due = so_far - so_far % STEP;
        let counted = if heard.output.is_some() { so_far } else { due };
        if counted > self.told {
            self.told = counted;
            permit.progress(input, counted);
        }
    }

    /// Settles what was reserved. Where nothing was worked on, the permit is left as it is: unserved.
    pub(crate) fn settle(&mut self, how: How, permit: &mut Permit, proxy: &Proxy) {
        let heard = self.meter.as_ref().map(|meter| *meter.heard());
        let Some((input, output)) = self.cost(how, heard.as_ref()) else {
            self.spent.set(0, 0);
            return;
        };
        self.spent.set(input, output);
        permit.settle(input, output);
        if how == How::Complete
            && let Some(heard) = heard
        {
            self.learn(&heard, permit.held(), proxy);
        }
    }

    /// Tokens of prompt and answer; none if nothing was worked on.
    fn cost(&self, how: How, heard: Option<&Heard>) -> Option<(u64, u64)> {
        if let (Some(done), true) = (self.done, how != How::Complete) {
            return Some((done, 0));
        }
        let estimate = self.reckoning.estimate();
        let Some(heard) = heard else {
            return match how {
                How::Refused => Some((0, 0)),
                // It was read, in part at least; how much was answered of a whole nobody knows.
                How::Left if self.reckoning.streams => Some((estimate.input, 0)),
                How::Left => Some((estimate.input, estimate.output)),
                How::Complete | How::Broken => None,
            };
        };
        let input = self.input(heard);
        match how {
            How::Refused => Some((0, 0)),
            How::Broken if heard.is_empty() || !self.reckoning.streams => None,
            How::Left if heard.is_empty() && !self.reckoning.streams => Some((input, estimate.output)),
            How::Complete if heard.is_empty() && heard.failed => None,
            // Without a prompt, Ollama only loads its model, or unloads it.
            How::Complete if heard.is_empty() && !self.reckoning.dialect.embeds() => Some((0, 0)),
            How::Complete | How::Left | How::Broken => Some((input, heard.so_far())),
        }
    }

    /// Tokens of the prompt: as Ollama counted them, with those from its cache at their weight; else as estimated.
    fn input(&self, heard: &Heard) -> u64 {
        let Some(input) = heard.input else {
            return self.reckoning.estimate().input;
        };
        let cached = heard.cached.min(input);
        let weight = f64::from(self.reckoning.cached_weight_milli) / 1000.0;
        (input - cached).saturating_add(to_u64((to_f64(cached) * weight).ceil()))
    }

    /// Compares the estimate with Ollama's counts, and learns from them.
    fn learn(&self, heard: &Heard, slot: Nanos, proxy: &Proxy) {
        let reckoning = &self.reckoning;
        let metrics = &proxy.core.metrics.tokens;
        let Some(input) = heard.input else {
            // What failed, or only loaded, has none to miss.
            if !heard.failed && (!heard.is_empty() || reckoning.dialect.embeds()) {
                metrics.uncounted();
            }
            return;
        };
        let output = (!reckoning.dialect.embeds()).then_some(heard.so_far());
        metrics.estimated(reckoning.estimate(), input, output.unwrap_or_default());
        let (size, context, cap) = (reckoning.size, reckoning.context, reckoning.cap);
        let (prompts, whose, spell) = (reckoning.prompts(), reckoning.whose, spell(heard));
        let lesson = Lesson { size, prompts, context, input, output, cap, slot, spell, whose };
        proxy.core.learned.lock().learn(reckoning.model(), &lesson);
        self.look_for_trouble(heard, proxy);
    }

    /// Compares how long it took with what is usual.
    fn look_for_trouble(&self, heard: &Heard, proxy: &Proxy) {
        let model = self.reckoning.model();
        let each = |nanos: Option<u64>, tokens: Option<u64>| {
            Some(Duration::from_nanos(nanos?.checked_div(tokens?)?))
        };
        let uncached = heard.input.map(|input| input.saturating_sub(heard.cached));
        if let Some(pace) = each(heard.read_in, uncached) {
            proxy.signs.lock().read(model, pace);
        }
        let Some(pace) = each(heard.made_in, heard.output) else { return };
        let beside = proxy.core.in_flight();
        if proxy.signs.lock().answered(model, beside, pace) {
            proxy.core.trouble();
        }
    }

    /// How long its answer took, and with what, if Ollama has told.
    pub(crate) fn times(&self) -> Option<Times> {
        self.meter.as_ref().and_then(|meter| meter.heard().times())
    }

    /// An answer that is surely being worked on has begun after so long. Whether that is far longer than its prompt takes.
    pub(crate) fn began_late(&self, took: Duration, proxy: &Proxy) -> bool {
        let within =
            proxy.signs.lock().should_begin_within(self.reckoning.model(), self.reckoning.estimate().input);
        within.is_some_and(|within| took > within)
    }
}

/// How long Ollama says it took. What it had in its cache it did not read.
fn spell(heard: &Heard) -> Spell {
    let uncached = heard.input.map(|input| input.saturating_sub(heard.cached));
    Spell { read: heard.read_in.map(Nanos).zip(uncached), wrote: heard.made_in.map(Nanos).zip(heard.output) }
}

#[cfg(test)]
mod tests {
    use corral_wire::TokensDoc;
    use http::Method;

    use super::super::Whose;
    use super::*;
    use crate::proxy::{inspect, route};

    /// Of a prompt that is estimated at 10 tokens, for an answer of 20 at most.
    fn account(stream: bool, cached_weight_milli: u32) -> Account {
        let text = "x".repeat(35);
        let body =
            format!(r#"{{"model":"a","prompt":"{text}","stream":{stream},"options":{{"num_predict":20}}}}"#);
        let uri = "/api/generate".parse().unwrap();
        let endpoint = route::find(&Method::POST, &uri).unwrap().endpoint;
        let asked = inspect::scan_body(body.as_bytes(), endpoint.action).unwrap();
        let tokens = TokensDoc { cached_weight_milli, ..TokensDoc::default() };
        let reckoning =
            Reckoning::of(&asked, endpoint, &tokens, (&super::super::Learned::default(), Whose::default()));
        Account::new(reckoning.unwrap(), Arc::default())
    }

    const WORD: &str = "{\"response\":\"a\",\"done\":false}\n";
    const END: &str = "{\"response\":\"\",\"done\":true,\"prompt_eval_count\":8,\"prompt_eval_cached_count\":5,\"eval_count\":3}\n";
    const ERROR: &str = "{\"error\":\"the runner died\"}\n";

    fn cost(stream: bool, weight: u32, how: How, answer: Option<&str>) -> Option<(u64, u64)> {
        let account = account(stream, weight);
        let mut meter = Meter::new(account.reckoning.dialect, stream);
        meter.see(answer.unwrap_or_default().as_bytes());
        account.cost(how, answer.map(|_| meter.heard()))
    }

    #[test]
    fn every_end_has_its_cost() {
        use How::{Broken, Complete, Left, Refused};
        let words = WORD.repeat(3);
        let whole = words.clone() + END;
        for (stream, how, answer, expected) in [
            (true, Complete, Some(whole.as_str()), Some((8, 3))),
            (true, Left, Some(&whole), Some((8, 3))),
            (false, Complete, Some(END), Some((8, 3))),
            (true, Complete, Some(&words), Some((10, 3))),
            (true, Left, Some(&words), Some((10, 3))),
            (true, Broken, Some(&words), Some((10, 3))),
            (true, Left, Some(""), Some((10, 0))),
            (true, Left, None, Some((10, 0))),
            (false, Left, Some(""), Some((10, 20))),
            (false, Left, None, Some((10, 20))),
            (true, Broken, Some(""), None),
            (false, Broken, Some(""), None),
            (true, Broken, None, None),
            (true, Complete, Some(ERROR), None),
            (true, Complete, Some(&(words.clone() + ERROR)), Some((10, 3))),
            (true, Refused, Some(ERROR), Some((0, 0))),
            (false, Complete, Some("{\"done\":true,\"done_reason\":\"load\"}"), Some((0, 0))),
        ] {
            assert_eq!(cost(stream, 1000, how, answer), expected, "{stream} {how:?} {answer:?}");
        }
    }

    #[test]
    fn tokens_from_the_cache_count_by_their_weight() {
        for (weight, input) in [(1000, 8), (0, 3), (500, 6), (1, 4)] {
            assert_eq!(cost(true, weight, How::Complete, Some(END)), Some((input, 3)), "{weight}");
        }
    }
}
