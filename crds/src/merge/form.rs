//! One policy on its way into a plan: what it asks for in the words of the plan, and how it stands to others.

use corral_limiter::ModelName;
use corral_wire::{
    Action as ActionDoc, AdaptiveDoc, Algorithm as AlgorithmDoc, EndpointClass, EndpointPriorityDoc,
    ExceedDoc, ExemptDoc, HeaderDoc, KeyPart, LimitDoc, Mode as ModeDoc, Oversize as OversizeDoc, PathDoc,
    PlanDoc, RateDoc, ResetDoc, Scope as ScopeDoc, TierDoc,
};

use super::PolicyInput;
use crate::{
    policy::{
        Action, Algorithm, Endpoint, EndpointPriority, Limit, Match, Mode, OnExceed, Oversize, PathType,
        Precedence, RateLimitPolicySpec, Scope, Tier, WrittenRate,
    },
    units::Rate,
    valid::{Problem, text::minute_of_day},
};

/// Where limits have no time zone of their own.
const UTC: &str = "UTC";
/// The scale of a tier that changes nothing.
const ONE_MILLI: u32 = 1000;

/// How a policy stands to others: the lesser goes before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// `Override`, `Normal`, `Default`.
    precedence: std::cmp::Reverse<Precedence>,
    /// One that names its pools is closer to them than one that selects them.
    selects: bool,
    /// Seconds; the older goes before.
    created: i64,
    /// `namespace/name`.
    identity: String,
}

/// What a policy brings into a plan.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub(super) identity: String,
    pub(super) rank: Rank,
    pub(super) precedence: Precedence,
    /// Whether the policy as a whole only counts.
    pub(super) shadow: bool,
    pub(super) limits: Vec<LimitDoc>,
    pub(super) tiers: Vec<TierDoc>,
    pub(super) default_tier: Option<String>,
    pub(super) endpoint_priorities: Vec<EndpointPriorityDoc>,
    pub(super) exempt: Vec<ExemptDoc>,
}

impl Form {
    /// A policy of which nothing is known but its name; it goes last.
    pub(super) fn unknown(identity: &str) -> Self {
        let rank = Rank {
            precedence: std::cmp::Reverse(Precedence::Normal),
            selects: true,
            created: i64::MAX,
            identity: identity.to_owned(),
        };
        Self::empty(identity.to_owned(), rank, Precedence::Normal, false)
    }

    /// What a policy asks for; nothing of it where it has problems.
    pub(super) fn of(policy: &PolicyInput<'_>, problems: &mut Vec<Problem>) -> Self {
        let spec = policy.spec;
        let identity = policy.identity();
        let rank = Rank {
            precedence: std::cmp::Reverse(spec.precedence),
            selects: spec.target_refs.is_none(),
            created: policy.created,
            identity: identity.clone(),
        };
        let mut form = Self::empty(identity, rank, spec.precedence, spec.mode == Mode::Shadow);
        let limits: Vec<LimitDoc> = spec
            .limits
            .iter()
            .enumerate()
            .filter_map(|(place, limit)| form.limit(spec, place, limit, problems))
            .collect();
        if problems.is_empty() {
            form.limits = limits;
            form.take_clients(spec);
        }
        form
    }

    fn empty(identity: String, rank: Rank, precedence: Precedence, shadow: bool) -> Self {
        Self {
            identity,
            rank,
            precedence,
            shadow,
            limits: Vec::new(),
            tiers: Vec::new(),
            default_tier: None,
            endpoint_priorities: Vec::new(),
            exempt: Vec::new(),
        }
    }

    /// Takes what a plan says of tiers and endpoints because of this policy.
    pub(super) fn keep_priorities(&mut self, last: &PlanDoc) {
        let own_tiers = last.tiers.iter().filter(|tier| tier.policy.as_ref() == Some(&self.identity));
        self.tiers = own_tiers.cloned().collect();
        let own = last.endpoint_priorities.iter().filter(|priority| priority.policy == self.identity);
        self.endpoint_priorities = own.cloned().collect();
    }

    /// Takes everything out.
    pub(super) fn clear(&mut self) {
        self.limits.clear();
        self.tiers.clear();
        self.default_tier = None;
        self.endpoint_priorities.clear();
        self.exempt.clear();
    }

    /// Whether it has a limit of this name that refuses.
    pub(super) fn enforces(&self, name: &str) -> bool {
        self.limits.iter().any(|limit| limit.name == name && limit.mode == ModeDoc::Enforce)
    }

    fn take_clients(&mut self, spec: &RateLimitPolicySpec) {
        self.tiers = spec.tiers.iter().map(|tier| self.tier(tier)).collect();
        self.default_tier.clone_from(&spec.default_tier);
        if !self.shadow {
            let of = |written| self.endpoint_priority(written);
            self.endpoint_priorities = spec.endpoint_priorities.iter().map(of).collect();
        }
        let Some(exempt) = &spec.exempt else { return };
        if exempt.cidrs.is_empty() && exempt.api_keys.is_empty() {
            return;
        }
        // What only counts lifts no limit of others.
        let from_all = self.precedence == Precedence::Override && !self.shadow;
        self.exempt = vec![ExemptDoc {
            policy: (!from_all).then(|| self.identity.clone()),
            cidrs: exempt.cidrs.clone(),
            clients: exempt.api_keys.clone(),
        }];
    }

    /// That of what only counts changes nothing.
    fn tier(&self, written: &Tier) -> TierDoc {
        let name = written.name.clone();
        if self.shadow {
            return TierDoc { name, ..TierDoc::default() };
        }
        let (weight, priority) = (written.weight, written.priority.map(Into::into));
        let says = weight != 1 || priority.is_some();
        let scale_milli = written.scale_milli().unwrap_or(ONE_MILLI);
        TierDoc { name, scale_milli, weight, priority, policy: says.then(|| self.identity.clone()) }
    }

    fn endpoint_priority(&self, written: &EndpointPriority) -> EndpointPriorityDoc {
        EndpointPriorityDoc {
            policy: self.identity.clone(),
            endpoint: written.endpoint.into(),
            priority: written.priority.into(),
        }
    }

    fn limit(
        &self,
        spec: &RateLimitPolicySpec,
        place: usize,
        limit: &Limit,
        problems: &mut Vec<Problem>,
    ) -> Option<LimitDoc> {
        let per = parts(limit, place, problems);
        let models = models(limit, place, problems);
        let shadow = spec.mode == Mode::Shadow || limit.mode == Some(Mode::Shadow);
        let mut doc = LimitDoc {
            policy: self.identity.clone(),
            name: limit.name.clone(),
            mode: if shadow { ModeDoc::Shadow } else { ModeDoc::Enforce },
            models: models?,
            per: per?,
            scope: limit.scope.into(),
            algorithm: limit.algorithm.into(),
            reset: reset(limit),
            concurrency: limit.concurrency,
            queued: limit.queued,
            queued_tokens: limit.queued_tokens,
            on_exceed: limit.on_exceed.as_ref().map(exceed).unwrap_or_default(),
            adaptive: limit
                .adaptive
                .as_ref()
                .map(|adaptive| AdaptiveDoc { min_milli: adaptive.min_percent * 10 }),
            ..LimitDoc::default()
        };
        if let Some(matches) = &limit.matches {
            cover(&mut doc, matches);
        }
        let [requests, tokens, input, output, slots] =
            limit.rates().map(|rate| rate_doc(limit.algorithm, &rate));
        (doc.requests, doc.tokens, doc.input_tokens) = (requests, tokens, input);
        (doc.output_tokens, doc.slot_seconds) = (output, slots);
        Some(doc)
    }
}

fn rate_doc(algorithm: Algorithm, written: &WrittenRate<'_>) -> Option<RateDoc> {
    let rate: Rate = written.rate?.parse().ok()?;
    let default = || written.default_burst(algorithm, rate);
    Some(rate.with_burst(written.burst.map_or_else(default, u64::from)))
}

fn reset(limit: &Limit) -> Option<ResetDoc> {
    if limit.reset_at.is_none() && limit.time_zone.is_none() {
        return None;
    }
    let minute_of_day = limit.reset_at.as_deref().and_then(minute_of_day).unwrap_or(0);
    let time_zone = limit.time_zone.clone().unwrap_or_else(|| UTC.to_owned());
    Some(ResetDoc { minute_of_day, time_zone })
}

fn exceed(written: &OnExceed) -> ExceedDoc {
    let action = match written.action {
        Action::Reject => ActionDoc::Reject,
        Action::Queue => ActionDoc::Queue,
        Action::Delay => ActionDoc::Delay,
        Action::Deprioritize => ActionDoc::Deprioritize,
    };
    let oversize = match written.oversize {
        Oversize::Debt => OversizeDoc::Debt,
        Oversize::Reject => OversizeDoc::Reject,
    };
    ExceedDoc { action, max_wait_ms: written.max_wait_ms(), oversize }
}

/// What it covers, each part in order, so that order of writing makes no other plan.
fn cover(doc: &mut LimitDoc, matches: &Match) {
    doc.endpoints = matches.endpoints.iter().map(|class| (*class).into()).collect();
    doc.endpoints.sort_unstable();
    doc.paths = matches
        .paths
        .iter()
        .map(|path| match path.kind {
            PathType::Exact => PathDoc::Exact(path.value.clone()),
            PathType::Prefix => PathDoc::Prefix(path.value.clone()),
        })
        .collect();
    doc.tiers = sorted(&matches.tiers);
    doc.cidrs = sorted(&matches.cidrs);
    let headers = matches.headers.iter();
    doc.headers =
        headers.map(|header| HeaderDoc { name: header.name.clone(), value: header.value.clone() }).collect();
    doc.headers.sort_by(|a, b| a.name.cmp(&b.name));
}

fn sorted(texts: &[String]) -> Vec<String> {
    let mut sorted = texts.to_vec();
    sorted.sort();
    sorted
}

fn parts(limit: &Limit, place: usize, problems: &mut Vec<Problem>) -> Option<Vec<KeyPart>> {
    let mut parts = Vec::with_capacity(limit.per.len());
    for (part_place, part) in limit.per.iter().enumerate() {
        match part.parse() {
            Ok(part) => parts.push(part),
            Err(bad) => problems.push(Problem {
                path: format!("spec.limits[{place}].per[{part_place}]"),
                message: format!("{bad}"),
            }),
        }
    }
    parts.sort_unstable();
    (parts.len() == limit.per.len()).then_some(parts)
}

/// The models in normal form, each once, and patterns as they are written but for capitals, which mean nothing.
fn models(limit: &Limit, place: usize, problems: &mut Vec<Problem>) -> Option<Vec<String>> {
    let written: &[String] = limit.matches.as_ref().map_or(&[], |matches| &matches.models);
    let (mut models, before) = (Vec::with_capacity(written.len()), problems.len());
    for (model_place, model) in written.iter().enumerate() {
        if model.contains('*') {
            models.push(model.to_ascii_lowercase());
            continue;
        }
        match ModelName::parse(model) {
            Ok(name) => models.push(name.to_string()),
            Err(bad) => problems.push(Problem {
                path: format!("spec.limits[{place}].match.models[{model_place}]"),
                message: bad.to_string(),
            }),
        }
    }
    models.sort();
    models.dedup();
    (problems.len() == before).then_some(models)
}

impl From<Scope> for ScopeDoc {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Pool => Self::Pool,
            Scope::Pod => Self::Pod,
        }
    }
}

impl From<Algorithm> for AlgorithmDoc {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::TokenBucket => Self::TokenBucket,
            Algorithm::LeakyBucket => Self::LeakyBucket,
            Algorithm::SlidingWindow => Self::SlidingWindow,
            Algorithm::SlidingLog => Self::SlidingLog,
            Algorithm::FixedWindow => Self::FixedWindow,
        }
    }
}

impl From<Endpoint> for EndpointClass {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Chat => Self::Chat,
            Endpoint::Generate => Self::Generate,
            Endpoint::Embed => Self::Embed,
            Endpoint::Metadata => Self::Metadata,
        }
    }
}
