//! Where requests stand in the queue: whose they are, what their clients weigh, how urgent they are.
#![cfg(test)]

use std::{num::NonZeroU32, sync::Arc};

use corral_limiter::{
    CompileErrors, HeadFacts, KnownClient, Limiter, LimiterSettings, Nanos, Place, compile,
    queue::{Band, Priority},
};
use corral_wire::{
    CostModel, EndpointClass, EndpointPriorityDoc, IdentityDoc, PLAN_VERSION, PlanDoc, PriorityDoc, QueueDoc,
    TierDoc,
};

const HEADER: &str = "x-priority";

fn tier(name: &str, weight: u32, priority: Option<PriorityDoc>) -> TierDoc {
    TierDoc { name: name.into(), weight, priority, ..TierDoc::default() }
}

fn of(endpoint: EndpointClass, priority: PriorityDoc) -> EndpointPriorityDoc {
    EndpointPriorityDoc { policy: "llm/fair-use".into(), endpoint, priority }
}

fn doc() -> PlanDoc {
    PlanDoc {
        version: PLAN_VERSION,
        identity: IdentityDoc { priority_header: Some(HEADER.into()), ..IdentityDoc::default() },
        queue: QueueDoc { max_depth: 64, max_wait_ms: 60_000, ..QueueDoc::default() },
        tiers: vec![tier("gold", 5, Some(PriorityDoc::High)), tier("bulk", 1000, None)],
        endpoint_priorities: vec![of(EndpointClass::Embed, PriorityDoc::Low)],
        ..PlanDoc::default()
    }
}

fn limiter(doc: &PlanDoc) -> Limiter {
    let mut limiter = Limiter::new(LimiterSettings { hash_key: [3; 16], keys_per_limit: 10 });
    limiter.swap(Arc::new(compile(doc).unwrap()), NonZeroU32::MIN, Nanos::ZERO);
    limiter
}

fn from(last: u8, endpoint: EndpointClass) -> HeadFacts {
    HeadFacts::new([192, 0, 2, last].into(), endpoint, "/api/chat")
}

fn with_key(name: &str, tier: Option<&str>, endpoint: EndpointClass) -> HeadFacts {
    let client = KnownClient { name: name.into(), tier: tier.map(Into::into) };
    HeadFacts { client: Some(Arc::new(client)), ..from(1, endpoint) }
}

fn saying(value: &str, head: HeadFacts) -> HeadFacts {
    HeadFacts { headers: vec![(HEADER.into(), value.into())], ..head }
}

fn wrong(change: impl FnOnce(&mut PlanDoc)) -> Vec<String> {
    let mut changed = doc();
    change(&mut changed);
    let CompileErrors(errors) = compile(&changed).unwrap_err();
    errors.into_iter().map(|error| error.path).collect()
}

#[test]
fn the_header_goes_before_the_tier_before_the_endpoint_before_medium() {
    let limiter = limiter(&doc());
    let priority = |head: &HeadFacts| limiter.place(head).priority;
    let gold = |endpoint| with_key("a", Some("gold"), endpoint);
    let bulk = |endpoint| with_key("b", Some("bulk"), endpoint);
    assert_eq!(priority(&saying("critical", gold(EndpointClass::Embed))), Priority::Critical);
    assert_eq!(priority(&saying("low", gold(EndpointClass::Chat))), Priority::Low);
    assert_eq!(priority(&gold(EndpointClass::Embed)), Priority::High);
    assert_eq!(priority(&bulk(EndpointClass::Embed)), Priority::Low);
    assert_eq!(priority(&bulk(EndpointClass::Generate)), Priority::Medium);
    assert_eq!(priority(&from(1, EndpointClass::Chat)), Priority::Medium);
}

#[test]
fn what_is_no_priority_in_the_header_is_as_if_it_were_not_there() {
    let limiter = limiter(&doc());
    let gold = || with_key("a", Some("gold"), EndpointClass::Chat);
    for value in ["", "spare", "urgent", "critical, low", "0"] {
        assert_eq!(limiter.place(&saying(value, gold())), limiter.place(&gold()), "{value}");
    }
}

#[test]
fn a_header_that_the_pool_does_not_trust_says_nothing() {
    let trusting = doc();
    let plan = compile(&trusting).unwrap();
    assert_eq!(plan.headers(), [HEADER]);
    let wary = PlanDoc { identity: IdentityDoc::default(), ..trusting };
    assert!(compile(&wary).unwrap().headers().is_empty());
    let head = saying("critical", from(1, EndpointClass::Chat));
    assert_eq!(limiter(&wary).place(&head).priority, Priority::Medium);
}

#[test]
fn a_client_has_the_weight_of_its_tier_and_a_default_tier_counts() {
    let with_default = PlanDoc { default_tier: Some("gold".into()), ..doc() };
    let weight = |doc: &PlanDoc, head: &HeadFacts| limiter(doc).place(head).weight;
    assert_eq!(weight(&doc(), &with_key("b", Some("bulk"), EndpointClass::Chat)), 1000);
    assert_eq!(weight(&doc(), &from(1, EndpointClass::Chat)), 1);
    assert_eq!(weight(&with_default, &from(1, EndpointClass::Chat)), 5);
}

#[test]
fn a_flow_is_a_client_whatever_it_asks_for_and_under_every_plan() {
    let (mut limiter, fresh) =
        (limiter(&doc()), Limiter::new(LimiterSettings { hash_key: [3; 16], keys_per_limit: 10 }));
    let flow = |limiter: &Limiter, head: &HeadFacts| limiter.place(head).flow;
    let chat = with_key("a", Some("gold"), EndpointClass::Chat);
    let before = flow(&limiter, &chat);
    let elsewhere =
        HeadFacts { client_ip: [203, 0, 113, 9].into(), ..with_key("a", None, EndpointClass::Embed) };
    assert_eq!(flow(&limiter, &saying("low", elsewhere)), before);
    assert_ne!(flow(&limiter, &from(1, EndpointClass::Chat)), before);
    assert_ne!(flow(&limiter, &from(1, EndpointClass::Chat)), flow(&limiter, &from(2, EndpointClass::Chat)));
    limiter.swap(Arc::new(compile(&PlanDoc { tiers: vec![], ..doc() }).unwrap()), NonZeroU32::MIN, Nanos(1));
    assert_eq!(flow(&limiter, &chat), before);
    assert_eq!(fresh.place(&chat), Place { flow: before, weight: 1, priority: Priority::Medium });
}

#[test]
fn bands_are_made_of_priorities() {
    let bands = [
        (Priority::Critical, Band::Interactive),
        (Priority::High, Band::Interactive),
        (Priority::Medium, Band::Standard),
        (Priority::Low, Band::Batch),
        (Priority::Spare, Band::Spare),
    ];
    for (priority, band) in bands {
        assert_eq!(priority.band(), band);
    }
}

#[test]
fn weights_waits_and_depths_have_bounds_that_are_told_by_their_path() {
    assert_eq!(wrong(|plan| plan.tiers = vec![tier("t", 0, None)]), ["tiers[0].weight"]);
    assert_eq!(wrong(|plan| plan.tiers = vec![tier("t", 1001, None)]), ["tiers[0].weight"]);
    assert_eq!(wrong(|plan| plan.tiers = vec![tier("t", u32::MAX, None)]), ["tiers[0].weight"]);
    assert_eq!(wrong(|plan| plan.queue.batch_max_wait_ms = 0), ["queue.batchMaxWaitMs"]);
    assert_eq!(wrong(|plan| plan.queue.batch_max_wait_ms = 3_600_001), ["queue.batchMaxWaitMs"]);
    assert_eq!(wrong(|plan| plan.queue.max_depth_per_client = Some(0)), ["queue.maxDepthPerClient"]);
    assert_eq!(wrong(|plan| plan.queue.max_depth_per_client = Some(100_001)), ["queue.maxDepthPerClient"]);
    for name in ["", "X-Priority", "x priority", &"x".repeat(65)] {
        assert_eq!(
            wrong(|plan| plan.identity.priority_header = Some(name.into())),
            ["identity.priorityHeader"]
        );
    }
}

#[test]
fn an_endpoint_has_one_priority_and_metadata_none() {
    let metadata = of(EndpointClass::Metadata, PriorityDoc::High);
    assert_eq!(wrong(|plan| plan.endpoint_priorities = vec![metadata]), ["endpointPriorities[0].endpoint"]);
    let twice = vec![of(EndpointClass::Chat, PriorityDoc::High), of(EndpointClass::Chat, PriorityDoc::Low)];
    assert_eq!(wrong(|plan| plan.endpoint_priorities = twice), ["endpointPriorities[1].endpoint"]);
}

#[test]
fn one_client_may_wait_with_a_quarter_of_the_depth_and_thirty_two_at_least() {
    let per_client = |max_depth, said| {
        let mut doc = doc();
        doc.queue = QueueDoc { max_depth, max_depth_per_client: said, ..doc.queue };
        compile(&doc).unwrap().queue().max_depth_per_client
    };
    assert_eq!(per_client(0, None), 32);
    assert_eq!(per_client(64, None), 32);
    assert_eq!(per_client(1000, None), 250);
    assert_eq!(per_client(1000, Some(7)), 7);
}

#[test]
fn a_plan_says_what_requests_cost_and_how_long_batch_waits() {
    let plan = compile(&doc()).unwrap();
    assert_eq!(
        (plan.cost_model(), plan.queue().batch_max_wait),
        (CostModel::SlotTime, Nanos::from_secs(300))
    );
    let mut by_tokens = doc();
    by_tokens.queue.cost_model = CostModel::Tokens;
    by_tokens.queue.batch_max_wait_ms = 3_600_000;
    let plan = compile(&by_tokens).unwrap();
    assert_eq!((plan.cost_model(), plan.queue().batch_max_wait), (CostModel::Tokens, Nanos::from_secs(3600)));
}
