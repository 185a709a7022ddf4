//! Models as a resource: which are loaded, and when one may be loaded in the place of another.
//!
//! Ollama holds a few models at one time and loads one after the other. Left alone it lets requests for a loaded model
//! pass by one that waits for a load, for as long as they come; and it throws a model out for every request that asks for
//! another. Here a load is a step of its own: one at a time, and only for whoever is next in fair order.
//!
//! A model that nobody uses gives way once it has been idle for as long as a load takes, 2 s at most: it may be asked for
//! again at once. One that is in use gives way to a more urgent band at once, and else after it has had
//! [`LOADS_OF_STAY`] times as long as a load takes: then it gets no new requests, those that run end, and it goes. So at
//! most one part in `LOADS_OF_STAY` + 1 of the time is spent on loads among equals, and nobody waits for ever. One that fewer
//! clients use than want the other stays shorter by as much.

use hashbrown::HashMap;

use super::{
    Band, Runner,
    adapt::{Adapt, Strain},
};
use crate::{ModelName, Nanos};

/// How many times as long as its load takes a model that is in use stays at least.
const LOADS_OF_STAY: u64 = 8;
/// It stays no shorter and no longer than this.
const LEAST_STAY: Nanos = Nanos::from_secs(5);
const LONGEST_STAY: Nanos = Nanos::from_secs(120);
/// A load whose time is not known is taken to be this long.
const UNKNOWN_LOAD: Nanos = Nanos::from_secs(2);
/// How long an idle model that was in use a moment ago is kept at most when another is wanted.
const LONGEST_GRACE: Nanos = Nanos::from_secs(2);
/// How many models' loading times, and numbers of slots, are remembered.
const MOST_MODELS: usize = 256;

/// What the queue knows of models.
#[derive(Debug, Clone, Default)]
pub(super) struct Models {
    resident: Vec<Resident>,
    swap: Option<Swap>,
    load_times: HashMap<ModelName, Nanos>,
    caps: HashMap<ModelName, u32>,
    /// Of models that have shown that they have too much.
    adapts: HashMap<ModelName, Adapt>,
}

/// A model that is loaded, or is being loaded.
#[derive(Debug, Clone)]
pub(super) struct Resident {
    pub(super) runner: Runner,
    /// Since when it is loaded, or its load goes on.
    since: Nanos,
    is_loading: bool,
    /// It was loaded, and Ollama has thrown it out though requests for it are in flight: they wait inside.
    is_displaced: bool,
    used: Nanos,
}

/// A model is to be loaded in the place of one that is in use.
#[derive(Debug, Clone)]
struct Swap {
    victim: Runner,
    to: Runner,
}

/// How a model that might give way is used now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use {
    pub(super) running: u32,
    /// The most urgent band of which something runs.
    pub(super) run_for: Option<Band>,
    /// The most urgent band in which it is waited for.
    pub(super) waited_for: Option<Band>,
    /// What those weigh who use it: the weights of the clients that wait, and one for each request that runs.
    pub(super) weight: u64,
}

impl Models {
    pub(super) fn set_cap(&mut self, model: &ModelName, cap: Option<u32>) {
        match cap {
            None => drop(self.caps.remove(model)),
            Some(cap) => insert_bounded(&mut self.caps, model, cap.max(1)),
        }
    }

    /// How many slots a model has, where others have so many.
    pub(super) fn most_slots(&self, model: &ModelName, per_model: u32) -> u32 {
        self.caps.get(model).map_or(per_model, |cap| (*cap).min(per_model))
    }

    /// How many of them are used now.
    pub(super) fn slots(&self, model: &ModelName, per_model: u32) -> u32 {
        let most = self.most_slots(model, per_model);
        self.adapts.get(model).map_or(most, |adapt| adapt.slots().min(most))
    }

    /// A sign that Ollama has too much of a model whose requests hold their slots for so long.
    pub(super) fn strain(&mut self, model: &ModelName, sign: (Strain, Nanos), per_model: u32, now: Nanos) {
        let most = self.most_slots(model, per_model);
        if !self.adapts.contains_key(model) {
            insert_bounded(&mut self.adapts, model, Adapt::new(most));
        }
        if let Some(adapt) = self.adapts.get_mut(model) {
            adapt.set_cap(most);
            adapt.strain(sign.0, sign.1, now);
        }
    }

    /// A request of a model has been served; `demand` as [`Adapt::served`] has it.
    pub(super) fn served(&mut self, model: &ModelName, demand: bool, per_model: u32, now: Nanos) {
        let most = self.most_slots(model, per_model);
        let Some(adapt) = self.adapts.get_mut(model) else { return };
        adapt.set_cap(most);
        adapt.served(now, demand);
        if adapt.is_whole() {
            self.adapts.remove(model);
        }
    }

    /// Slots that are due come back to those models that are waited for.
    pub(super) fn recover(&mut self, is_waited_for: impl Fn(&ModelName) -> bool, now: Nanos) {
        for (model, adapt) in &mut self.adapts {
            adapt.look(now, is_waited_for(model));
        }
    }

    /// When the next slots come back.
    pub(super) fn next_recovery(&self, now: Nanos) -> Option<Nanos> {
        self.adapts.values().filter_map(|adapt| adapt.next_step(now)).filter(|at| *at > now).min()
    }

    pub(super) fn is_loaded(&self, runner: &Runner) -> bool {
        self.find(runner).is_some_and(|resident| !resident.is_loading)
    }

    pub(super) fn is_resident(&self, runner: &Runner) -> bool {
        self.find(runner).is_some()
    }

    pub(super) fn residents(&self) -> &[Resident] {
        &self.resident
    }

    fn find(&self, runner: &Runner) -> Option<&Resident> {
        self.resident.iter().find(|resident| resident.runner == *runner)
    }

    fn is_loading(&self) -> bool {
        self.resident.iter().any(|resident| resident.is_loading)
    }

    /// How long the load of a model takes: as long as its last one.
    pub(super) fn load_time(&self, model: &ModelName) -> Nanos {
        self.load_times.get(model).copied().unwrap_or(UNKNOWN_LOAD)
    }

    /// Whether requests for a runner may start now, as far as loading goes.
    pub(super) fn admits(
        &self,
        runner: &Runner,
        places: u32,
        used: impl Fn(&Runner) -> Use,
        now: Nanos,
    ) -> bool {
        if self.find(runner).is_some() {
            return self.swap.as_ref().is_none_or(|swap| swap.victim != *runner);
        }
        if self.is_loading() || self.swap.as_ref().is_some_and(|swap| swap.to != *runner) {
            return false;
        }
        match self.in_the_way(runner, places, &used, now) {
            InTheWay::Nobody | InTheWay::Idle(_) => true,
            InTheWay::Busy => self.swap.as_ref().is_some_and(|swap| used(&swap.victim).running == 0),
        }
    }

    /// Starts a request for a runner: it is loaded if it is not, in the place of whoever has to go.
    pub(super) fn start(&mut self, runner: &Runner, places: u32, used: impl Fn(&Runner) -> Use, now: Nanos) {
        if let Some(resident) = self.resident.iter_mut().find(|resident| resident.runner == *runner) {
            resident.used = now;
            return;
        }
        let swap = self.swap.take_if(|swap| swap.to == *runner);
        let victim = match self.in_the_way(runner, places, &used, now) {
            InTheWay::Nobody => None,
            InTheWay::Idle(victim) => Some(victim),
            InTheWay::Busy => swap.map(|swap| swap.victim),
        };
        self.resident.retain(|resident| Some(&resident.runner) != victim.as_ref());
        self.resident.push(Resident {
            runner: runner.clone(),
            since: now,
            is_loading: true,
            is_displaced: false,
            used: now,
        });
    }

    /// The last request for a runner has ended. One whose load brought nothing gives its place back.
    pub(super) fn at_rest(&mut self, runner: &Runner, now: Nanos) {
        self.resident.retain(|resident| resident.runner != *runner || !resident.is_loading);
        if let Some(resident) = self.resident.iter_mut().find(|resident| resident.runner == *runner) {
            resident.used = now;
        }
    }

    /// An answer has begun: the runner is loaded.
    pub(super) fn loaded(&mut self, runner: &Runner, now: Nanos) {
        let found = self.resident.iter_mut().find(|resident| resident.runner == *runner);
        let Some(resident) = found.filter(|resident| resident.is_loading) else { return };
        let took = now.since(resident.since);
        let was_displaced = resident.is_displaced;
        (resident.is_loading, resident.is_displaced, resident.since) = (false, false, now);
        if !was_displaced {
            insert_bounded(&mut self.load_times, &runner.model, took);
        } else if let Some(swap) = self.swap.take_if(|swap| swap.to == *runner) {
            self.resident.retain(|resident| resident.runner != swap.victim);
        }
    }

    /// Of those with nothing in flight, only these are loaded still. If more are taken to be loaded than there are places,
    /// those that are not among these wait inside Ollama, before all who wait for loads, until another one is idle: one
    /// gets no new requests until then.
    pub(super) fn seen(&mut self, loaded: &[ModelName], places: u32, running: impl Fn(&Runner) -> u32) {
        self.resident.retain(|resident| {
            let runner = &resident.runner;
            resident.is_loading || running(runner) > 0 || loaded.contains(&runner.model)
        });
        if self.resident.len() <= usize::try_from(places).unwrap_or(usize::MAX) {
            return;
        }
        for resident in self.resident.iter_mut().filter(|resident| !loaded.contains(&resident.runner.model)) {
            resident.is_displaced |= !resident.is_loading;
            resident.is_loading = true;
        }
        let waits = self.resident.iter().find(|resident| resident.is_displaced);
        let stays = self.resident.iter().filter(|resident| !resident.is_loading);
        if let (None, Some(waits), Some(victim)) =
            (&self.swap, waits, stays.min_by_key(|resident| resident.since))
        {
            self.swap = Some(Swap { victim: victim.runner.clone(), to: waits.runner.clone() });
        }
    }

    /// Who is wanted in the place of another has nobody left who waits for it, here or inside Ollama.
    pub(super) fn call_off(&mut self, waited_for: impl Fn(&Runner) -> bool) {
        let wanted = |runner: &Runner| waited_for(runner) || self.is_resident(runner);
        if self.swap.as_ref().is_some_and(|swap| !wanted(&swap.to) || self.find(&swap.victim).is_none()) {
            self.swap = None;
        }
    }

    /// A runner that is not loaded is the next to be, for somebody of this band: if all places are in use, one of those that
    /// come after it in fair order, and may have to give way, gets no new requests from now on.
    pub(super) fn make_way(
        &mut self,
        to: (&Runner, Band),
        places: u32,
        used: impl Fn(&Runner) -> Use,
        comes_after: impl Fn(&Runner) -> bool,
        now: Nanos,
    ) {
        let blocked = self.is_loading() || self.swap.is_some() || self.find(to.0).is_some();
        if blocked || !matches!(self.in_the_way(to.0, places, &used, now), InTheWay::Busy) {
            return;
        }
        let wanted_by = (to.1, used(to.0).weight);
        let due = |resident: &&Resident| {
            comes_after(&resident.runner) && self.is_due(resident, wanted_by, &used, now)
        };
        let victim = match self.same_model(to.0) {
            Some(other) => Some(other).filter(due),
            None => self.resident.iter().filter(due).min_by_key(|resident| resident.since),
        };
        self.swap = victim.map(|victim| Swap { victim: victim.runner.clone(), to: to.0.clone() });
    }

    /// When a runner that is waited for may be loaded, though nothing happens until then; none if that is now, or hangs
    /// on something else.
    pub(super) fn next_change(
        &self,
        to: &Runner,
        used: impl Fn(&Runner) -> Use,
        now: Nanos,
    ) -> Option<Nanos> {
        let wanted = used(to).weight;
        // One that is only waited for, by those whose limits hold them back, is in use as well.
        let changes = |resident: &Resident| {
            let grace =
                Some(self.grace(&resident.runner.model)).filter(|_| used(&resident.runner).running == 0);
            let stay = self.stay(&resident.runner.model, used(&resident.runner).weight, wanted);
            let stay = resident.since.plus(stay);
            [grace.map(|grace| resident.used.plus(grace)), Some(stay)].into_iter().flatten()
        };
        self.resident.iter().flat_map(changes).filter(|at| *at > now).min()
    }

    /// Who has to go for a runner that is not loaded.
    fn in_the_way(
        &self,
        runner: &Runner,
        places: u32,
        used: &impl Fn(&Runner) -> Use,
        now: Nanos,
    ) -> InTheWay {
        let goes = |resident: &Resident| {
            let Use { running, waited_for, .. } = used(&resident.runner);
            running == 0
                && waited_for.is_none()
                && now >= resident.used.plus(self.grace(&resident.runner.model))
        };
        if let Some(other) = self.same_model(runner) {
            return if goes(other) { InTheWay::Idle(other.runner.clone()) } else { InTheWay::Busy };
        }
        if self.resident.len() < usize::try_from(places).unwrap_or(usize::MAX) {
            return InTheWay::Nobody;
        }
        let idle =
            self.resident.iter().filter(|resident| goes(resident)).min_by_key(|resident| resident.used);
        idle.map_or(InTheWay::Busy, |resident| InTheWay::Idle(resident.runner.clone()))
    }

    /// Ollama has a model loaded once only: with other options it is loaded anew.
    fn same_model(&self, runner: &Runner) -> Option<&Resident> {
        self.resident.iter().find(|resident| resident.runner.model == runner.model)
    }

    fn is_due(
        &self,
        resident: &Resident,
        (wanted_by, wanted): (Band, u64),
        used: &impl Fn(&Runner) -> Use,
        now: Nanos,
    ) -> bool {
        let Use { run_for, waited_for, weight, .. } = used(&resident.runner);
        // Who is served probably comes again, though nobody waits just now.
        let most_urgent = run_for.into_iter().chain(waited_for).min();
        most_urgent.is_some_and(|band| {
            let stay = self.stay(&resident.runner.model, weight, wanted);
            wanted_by < band || now >= resident.since.plus(stay)
        })
    }

    /// How long a model stays that is used by clients of this weight, where clients of that weight want another one: the
    /// fewer they are beside those, the shorter.
    fn stay(&self, model: &ModelName, weight: u64, wanted: u64) -> Nanos {
        let loads = self.load_time(model).0.saturating_mul(LOADS_OF_STAY);
        let whole = Nanos(loads).clamp(LEAST_STAY, LONGEST_STAY);
        let all = u128::from(weight.saturating_add(wanted)).max(1);
        let twice = u128::from(whole.0).saturating_mul(2);
        let part = twice.saturating_mul(weight.into()).checked_div(all).unwrap_or_default();
        whole.min(Nanos(u64::try_from(part).unwrap_or(u64::MAX)))
    }

    fn grace(&self, model: &ModelName) -> Nanos {
        self.load_time(model).min(LONGEST_GRACE)
    }
}

/// Who has to go before a runner can be loaded.
enum InTheWay {
    Nobody,
    /// This one, which nobody uses.
    Idle(Runner),
    /// Somebody who is in use, or was a moment ago.
    Busy,
}

fn insert_bounded<T>(map: &mut HashMap<ModelName, T>, model: &ModelName, value: T) {
    if map.len() >= MOST_MODELS && !map.contains_key(model) {
        // Any: what is forgotten is learned again.
        let any = map.keys().next().cloned();
        any.and_then(|any| map.remove(&any));
    }
    map.insert(model.clone(), value);
}

#[cfg(test)]
#[path = "models_tests.rs"]
mod tests;
