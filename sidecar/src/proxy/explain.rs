//! Judges a request that is only asked about: as the data path would, up to the point where something is taken.

use std::sync::Arc;

use corral_limiter::{HeadFacts, Limit, ModelName, Plan, Standing, Usage};
use corral_wire::{EndpointClass, Mode, Unauthenticated};
use http::{Method, Uri};

use super::api_key::{self, Caller};
use super::inspect;
use super::refused::Refused;
use super::route::{self, Action, Route};
use super::{head, identify, reckon, wording};
use crate::core::Core;
use crate::explain::{Ask, Bucket, Charged, Estimate, Explained, Judged, Outcome};
use crate::health::Unavailable;

/// What would become of a request now. The error is for whoever typed it.
pub(crate) fn explain(core: &Core, ask: &Ask) -> Result<Explained, String> {
    let method = Method::from_bytes(ask.method.as_bytes()).map_err(|_| "this is no method".to_owned())?;
    let uri: Uri = ask.target.parse().map_err(|_| "this is no path".to_owned())?;
    let mut explained = Explained {
        request: format!("{method} {uri}"),
        client: None,
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
    let wanted = Wanted::read(core, &route, &ask.body)?;
    explained.model = wanted.model.as_ref().map(ToString::to_string);
    explained.estimate = wanted.estimate.map(Estimate::from);
    explained.limits = limits(core, &plan, &facts, wanted.model.as_ref());
    let unavailable = core.health.unavailable().filter(|_| route.endpoint.action != Action::Limits);
    unavailable.map_or(Ok(()), |why| Err(Refused::Unavailable(why)))?;
    Ok(outcome(core, &explained.limits, route.endpoint.action == Action::Infer))
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
    explained.client = Some(charged(&facts));
    match caller {
        Caller::Unknown(why) if plan.unauthenticated() == Unauthenticated::Reject => {
            Err(Refused::Unauthenticated(why))
        }
        _ => Ok(facts),
    }
}

fn charged(facts: &HeadFacts) -> Charged {
    let client = facts.client.as_ref();
    Charged {
        name: client.map(|client| client.name.clone()),
        address: facts.client_ip,
        tier: client.and_then(|client| client.tier.clone()),
    }
}

/// What the request asks for, by its path or its body.
struct Wanted {
    model: Option<ModelName>,
    estimate: Option<Usage>,
}

impl Wanted {
    fn read(core: &Core, route: &Route<'_>, body: &str) -> Result<Self, Refused> {
        let action = route.endpoint.action;
        if !matches!(action, Action::Look | Action::Limits) {
            let asked = inspect::scan_body(body.as_bytes(), action)?;
            let estimate = reckon(core, &asked, route.endpoint).map(|reckoning| reckoning.estimate());
            return Ok(Self { model: Some(asked.model), estimate });
        }
        if !body.is_empty() {
            return Err(Refused::UnwantedBody);
        }
        Ok(Self { model: route.model.map(inspect::parse_model).transpose()?, estimate: None })
    }
}

/// What every limit of the plan has to say, those that apply first and of them the scarcest.
fn limits(core: &Core, plan: &Plan, facts: &HeadFacts, model: Option<&ModelName>) -> Vec<Judged> {
    let standings = core.standing(facts, model);
    let mut judged: Vec<Judged> =
        plan.limits().iter().map(|limit| judged(limit, facts, &standings)).collect();
    let place =
        |judged: &Judged| standings.iter().position(|standing| standing.limit.to_string() == judged.limit);
    judged.sort_by_key(|judged| (judged.not_for.is_some(), place(judged)));
    judged
}

fn judged(limit: &Limit, facts: &HeadFacts, standings: &[Standing]) -> Judged {
    let own: Vec<&Standing> = standings.iter().filter(|standing| standing.limit == *limit.info()).collect();
    let not_for = own.is_empty().then(|| not_for(limit, facts.endpoint));
    let refuses = own.iter().any(|standing| standing.remaining < 1);
    Judged {
        limit: limit.info().to_string(),
        mode: limit.mode(),
        per: limit.per().to_vec(),
        not_for,
        says: if refuses { "refuses" } else { "admits" }.to_owned(),
        buckets: own.into_iter().map(bucket).collect(),
    }
}

fn not_for(limit: &Limit, endpoint: EndpointClass) -> String {
    if limit.endpoints().contains(&endpoint) { "it is for other models" } else { "it is for other endpoints" }
        .to_owned()
}

fn bucket(standing: &Standing) -> Bucket {
    let unit = standing.unit;
    let limit = match standing.limit.rate(unit) {
        Some(rate) => {
            format!("{} {} per {}", wording::count(&rate), wording::words(unit), wording::window(rate.window))
        }
        None => format!("{} {}", wording::amount(standing.quota, unit), wording::words(unit)),
    };
    Bucket {
        limit,
        remaining: wording::amount(standing.remaining, unit),
        capacity: wording::amount(standing.capacity, unit),
        requested: wording::amount(unit.permits(), unit),
        wait_ms: standing.next.millis_ceil(),
    }
}

fn outcome(core: &Core, limits: &[Judged], needs_slot: bool) -> Outcome {
    let refusing = limits
        .iter()
        .find(|limit| limit.mode == Mode::Enforce && limit.not_for.is_none() && limit.says == "refuses");
    if let Some(limit) = refusing {
        return Outcome { status: Some(429), text: format!("refused by limit {}", limit.limit) };
    }
    let gauges = core.gauges();
    let text = match (needs_slot, gauges.queued) {
        (false, _) => "goes on to Ollama at once; it needs no slot".to_owned(),
        (true, 0) => format!("goes on to Ollama when a slot is free; {} run, nobody waits", gauges.in_flight),
        (true, queued) => format!(
            "waits for a slot behind {queued} others, about {}s",
            gauges.predicted_wait_ms.div_ceil(1000)
        ),
    };
    Outcome { status: None, text }
}
