//! Judges a request that is only asked about: as the data path would, up to the point where something is taken.

use std::sync::Arc;

use corral_limiter::{Explained as Said, HeadFacts, Limit, ModelName, Nanos, Plan, Standing, Usage, Would};
use corral_wire::{Gauges, Unauthenticated};
use http::{Method, Uri};

use super::api_key::{self, Caller};
use super::inspect;
use super::refused::Refused;
use super::route::{self, Action, Route};
use super::{head, identify, reckon, wording};
use crate::core::Core;
use crate::explain::{self as words, Ask, Bucket, Charged, Estimate, Explained, Judged, Outcome, Placed};
use crate::health::Unavailable;

/// What would become of a request now. The error is for whoever typed it.
pub(crate) fn explain(core: &Core, ask: &Ask) -> Result<Explained, String> {
    let method = Method::from_bytes(ask.method.as_bytes()).map_err(|_| "this is no method".to_owned())?;
    let uri: Uri = ask.target.parse().map_err(|_| "this is no path".to_owned())?;
    let mut explained = Explained {
        request: format!("{method} {uri}"),
        client: None,
        place: None,
        model: None,
        estimate: None,
        limits: Vec::new(),
        outcome: Outcome { status: None, text: String::new() },
    };
    explained.outcome = match judge(core, ask, (&method, &uri), &mut explained) {
        Ok(outcome) => outcome,
        Err(refused) => Outcome { status: Some(refused.status().as_u16()), text: refused.to_string() },
    };
    Ok(explained)
}

fn judge(
    core: &Core,
    ask: &Ask,
    (method, uri): (&Method, &Uri),
    explained: &mut Explained,
) -> Result<Outcome, Refused> {
    let headers = ask.header_map();
    head::check(&headers)?;
    let route = route::find(method, uri)?;
    let plan = core.plan().ok_or(Refused::Unavailable(Unavailable::NoPlan))?;
    let facts = identify(core, ask, &route, &plan, explained)?;
    explained.place = (route.endpoint.action == Action::Infer).then(|| Box::new(placed(&facts, &plan)));
    let wanted = Wanted::read(core, &route, (&ask.body, &facts))?;
    explained.model = wanted.model.as_ref().map(ToString::to_string);
    explained.estimate = wanted.estimate.map(Estimate::from);
    let (limits, winner) = limits(core, &plan, &facts, &wanted);
    explained.limits = limits;
    let unavailable = core.health.unavailable().filter(|_| route.endpoint.action != Action::Limits);
    unavailable.map_or(Ok(()), |why| Err(Refused::Unavailable(why)))?;
    Ok(outcome(core, winner.as_ref(), route.endpoint.action == Action::Infer))
}

/// Whom the request would be charged to.
fn identify(
    core: &Core,
    ask: &Ask,
    route: &Route<'_>,
    plan: &Plan,
    explained: &mut Explained,
) -> Result<HeadFacts, Refused> {
    let headers = ask.header_map();
    let address = identify::client_ip(ask.client_ip, &headers, plan.trusted_proxies());
    let mut facts = HeadFacts::new(address, route.endpoint.class, route.endpoint.path);
    facts.headers = identify::trusted_headers(&headers, plan.headers());
    let caller = api_key::caller(&headers, plan, &core.digesters);
    if let Caller::Known(client) = &caller {
        facts.client = Some(Arc::clone(client));
    }
    explained.client = Some(charged(&facts, plan));
    match caller {
        Caller::Unknown(why) if plan.unauthenticated() == Unauthenticated::Reject => {
            Err(Refused::Unauthenticated(why))
        }
        _ => Ok(facts),
    }
}

fn charged(facts: &HeadFacts, plan: &Plan) -> Charged {
    let client = facts.client.as_ref();
    Charged {
        name: client.map(|client| client.name.clone()),
        address: facts.client_ip,
        tier: plan.tier_of(facts).map(str::to_owned),
    }
}

fn placed(facts: &HeadFacts, plan: &Plan) -> Placed {
    Placed { priority: words::urgency(plan.priority_of(facts)).to_owned(), weight: plan.weight_of(facts) }
}

/// What the request asks for, by its path or its body.
struct Wanted {
    model: Option<ModelName>,
    estimate: Option<Usage>,
}

impl Wanted {
    fn read(core: &Core, route: &Route<'_>, (body, facts): (&str, &HeadFacts)) -> Result<Self, Refused> {
        let action = route.endpoint.action;
        if !matches!(action, Action::Look | Action::Limits) {
            let asked = inspect::scan_body(body.as_bytes(), action)?;
            let estimate = reckon(core, &asked, route.endpoint, facts).map(|reckoning| reckoning.estimate());
            return Ok(Self { model: Some(asked.model), estimate });
        }
        if !body.is_empty() {
            return Err(Refused::UnwantedBody);
        }
        Ok(Self { model: route.model.map(inspect::parse_model).transpose()?, estimate: None })
    }
}

/// What every limit of the plan has to say: the one that decides first, then those that apply, then the others.
fn limits(core: &Core, plan: &Plan, facts: &HeadFacts, wanted: &Wanted) -> (Vec<Judged>, Option<Said>) {
    let estimate = wanted.estimate.unwrap_or_default();
    let mut said = core.explain(facts, wanted.model.as_ref(), estimate);
    said.sort_by_key(|said| (!said.wins, said.mismatch.is_some()));
    let limit_of = |said: &Said| plan.limits().iter().find(|limit| limit.info() == &said.limit);
    let judged = said.iter().map(|said| judged(said, limit_of(said), estimate)).collect();
    (judged, said.into_iter().find(|said| said.wins))
}

fn judged(said: &Said, limit: Option<&Limit>, estimate: Usage) -> Judged {
    Judged {
        limit: said.limit.to_string(),
        mode: said.mode,
        per: limit.map(|limit| limit.per().to_vec()).unwrap_or_default(),
        not_for: said.mismatch.map(|mismatch| words::not_for(mismatch).to_owned()),
        says: said.would.map(words::says).unwrap_or_default(),
        decides: said.wins,
        buckets: said.standings.iter().map(|standing| bucket(standing, estimate)).collect(),
    }
}

fn bucket(standing: &Standing, estimate: Usage) -> Bucket {
    let unit = standing.unit;
    let limit = match standing.limit.rate(unit) {
        Some(rate) => {
            format!("{} {} per {}", wording::count(&rate), wording::words(unit), wording::window(rate.window))
        }
        None => format!("{} {}", standing.quota, wording::words(unit)),
    };
    Bucket {
        limit,
        used: standing.used,
        remaining: standing.remaining,
        capacity: standing.capacity,
        requested: words::requested(unit, estimate),
        next_ms: standing.next.millis_ceil(),
    }
}

/// What the gravest word of all limits comes to, and then the queue.
fn outcome(core: &Core, winner: Option<&Said>, needs_slot: bool) -> Outcome {
    let decided = winner.and_then(|winner| Some((winner.limit.to_string(), winner.would?)));
    let go_on = |text: String| Outcome { status: None, text };
    match decided {
        Some((limit, Would::Reject(wait))) => {
            let text = format!("limit {limit} refuses it; worth trying again in {}", wording::seconds(wait));
            Outcome { status: Some(429), text }
        }
        Some((limit, Would::Never)) => {
            let text = format!("limit {limit} never admits it: it costs more than one request may");
            Outcome { status: Some(400), text }
        }
        Some((limit, Would::Delay(wait))) => {
            go_on(format!("limit {limit} lets it start in {}; then {}", wording::seconds(wait), queue(core)))
        }
        Some((limit, Would::Queue(wait))) => go_on(format!(
            "limit {limit} keeps it in the queue for {} at least; {}",
            wording::seconds(wait),
            queue(core)
        )),
        Some((limit, Would::Deprioritize)) => {
            go_on(format!("limit {limit} lets it have a slot when nobody else wants it; {}", queue(core)))
        }
        _ if needs_slot => go_on(format!("all limits admit it; {}", queue(core))),
        _ => go_on("all limits admit it; it needs no slot".to_owned()),
    }
}

fn queue(core: &Core) -> String {
    let Gauges { slots, in_flight, queued, predicted_wait_ms, .. } = core.gauges();
    let wait = wording::seconds(Nanos::from_millis(predicted_wait_ms));
    match queued {
        0 => format!("{in_flight} run on {slots} slots a model, nobody waits"),
        _ => format!("{in_flight} run and {queued} wait for a slot, about {wait}"),
    }
}
