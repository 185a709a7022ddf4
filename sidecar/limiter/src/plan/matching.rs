//! Which limits apply to a request: by lists made when the plan is compiled, and then by what each limit covers.

use std::net::IpAddr;

use corral_wire::{EndpointClass, Mode, PathDoc};
use ipnet::IpNet;

use super::{Limit, Plan, limit::UNSCALED};
use crate::{HeadFacts, ModelName, pattern::Pattern};

/// What a limit covers. A list that is empty covers all.
#[derive(Debug, Clone, Default)]
pub(super) struct Cover {
    pub(super) endpoints: Vec<EndpointClass>,
    pub(super) paths: Vec<PathDoc>,
    pub(super) models: Vec<Pattern>,
    /// The same, to be shown.
    pub(super) model_texts: Vec<String>,
    pub(super) tiers: Vec<String>,
    pub(super) headers: Vec<(Box<str>, Box<str>)>,
    pub(super) cidrs: Vec<IpNet>,
}

/// Whom limits do not apply to.
#[derive(Debug, Clone, Default)]
pub(super) struct Exemption {
    pub(super) cidrs: Vec<IpNet>,
    /// Sorted.
    pub(super) clients: Vec<String>,
}

/// Why a limit does not apply to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mismatch {
    /// It covers other endpoints.
    Endpoint,
    /// It covers other paths.
    Path,
    /// It covers other models.
    Model,
    /// It covers other tiers.
    Tier,
    /// It covers requests with a header that this one lacks.
    Header,
    /// It covers other addresses.
    Address,
    /// It does not apply to this client.
    Exempt,
}

impl Mismatch {
    /// One word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Path => "path",
            Self::Model => "model",
            Self::Tier => "tier",
            Self::Header => "header",
            Self::Address => "address",
            Self::Exempt => "exempt",
        }
    }
}

/// What of a request limits are matched by, found once for all of them.
#[derive(Debug, Clone)]
pub(crate) struct Traits<'a> {
    pub(crate) tier: Option<&'a str>,
    /// Of its tier, in thousandths.
    pub(crate) scale: u32,
    /// Which exemptions hold for it; none when the plan has none.
    exempted: Option<Box<Exempted>>,
}

/// A limit that covers a class of endpoints, and what need not be asked of each request.
#[derive(Debug)]
pub(crate) struct Covering {
    /// Place of the limit in the plan.
    pub(crate) place: usize,
    /// [`Limit::is_decided_by_head`].
    pub(crate) is_decided_by_head: bool,
    /// It covers every head that asks for the class.
    pub(crate) takes_all_heads: bool,
    /// It covers every model.
    pub(crate) takes_all_models: bool,
}

impl Covering {
    fn new(place: usize, limit: &Limit) -> Self {
        let Cover { paths, tiers, headers, cidrs, models, .. } = &limit.cover;
        let asks_nothing = paths.is_empty() && tiers.is_empty() && headers.is_empty() && cidrs.is_empty();
        Self {
            place,
            is_decided_by_head: limit.is_decided_by_head(),
            takes_all_heads: asks_nothing && limit.exemptions.is_empty(),
            takes_all_models: models.is_empty(),
        }
    }
}

/// For each exemption of a plan, whether it holds.
#[derive(Debug, Clone)]
struct Exempted(Vec<bool>);

/// The limits that a plan has for one class of endpoints.
#[derive(Debug)]
struct OfClass {
    enforced: Box<[Covering]>,
    shadow: Box<[Covering]>,
}

impl OfClass {
    fn new(limits: &[Limit], class: EndpointClass) -> Self {
        let of = |mode| {
            let limits = limits.iter().enumerate();
            let ours = limits.filter(|(_, limit)| limit.mode == mode && limit.covers_endpoint(class));
            ours.map(|(place, limit)| Covering::new(place, limit)).collect()
        };
        Self { enforced: of(Mode::Enforce), shadow: of(Mode::Shadow) }
    }
}

/// The limits that a plan has for each class of endpoints.
#[derive(Debug)]
pub(super) struct MatchTable {
    chat: OfClass,
    generate: OfClass,
    embed: OfClass,
    metadata: OfClass,
}

impl MatchTable {
    pub(super) fn new(limits: &[Limit]) -> Self {
        Self {
            chat: OfClass::new(limits, EndpointClass::Chat),
            generate: OfClass::new(limits, EndpointClass::Generate),
            embed: OfClass::new(limits, EndpointClass::Embed),
            metadata: OfClass::new(limits, EndpointClass::Metadata),
        }
    }
}

impl Plan {
    /// The limits of a mode that cover a class of endpoints, in the order of [`Plan::limits`].
    pub(crate) fn covering(
        &self,
        class: EndpointClass,
        mode: Mode,
    ) -> impl Iterator<Item = (&Covering, &Limit)> {
        let of_class = match class {
            EndpointClass::Chat => &self.table.chat,
            EndpointClass::Generate => &self.table.generate,
            EndpointClass::Embed => &self.table.embed,
            EndpointClass::Metadata => &self.table.metadata,
        };
        let covering = match mode {
            Mode::Enforce => &of_class.enforced,
            Mode::Shadow => &of_class.shadow,
        };
        covering.iter().filter_map(|covering| Some((covering, self.limits.get(covering.place)?)))
    }

    /// The tier of a request: its client's own, else the default one, else none.
    pub fn tier_of<'a>(&'a self, head: &'a HeadFacts) -> Option<&'a str> {
        let own = head.client.as_ref().and_then(|client| client.tier.as_deref());
        own.or(self.default_tier.as_deref())
    }

    #[inline]
    pub(crate) fn traits<'a>(&'a self, head: &'a HeadFacts) -> Traits<'a> {
        let tier = self.tier_of(head);
        let exempted = if self.has_exemptions() { Some(Box::new(self.exempted(head))) } else { None };
        Traits { tier, scale: tier.map_or(UNSCALED, |tier| self.scale_of(tier)), exempted }
    }

    fn exempted(&self, head: &HeadFacts) -> Exempted {
        let address = head.client_ip.to_canonical();
        Exempted(self.exemptions.iter().map(|exemption| exemption.covers(head, address)).collect())
    }

    fn scale_of(&self, tier: &str) -> u32 {
        self.tier(tier).map_or(UNSCALED, |tier| tier.scale)
    }
}

impl Exemption {
    fn covers(&self, head: &HeadFacts, address: IpAddr) -> bool {
        let known = |name: &String| self.clients.binary_search(name).is_ok();
        self.cidrs.iter().any(|cidr| cidr.contains(&address))
            || head.client.as_ref().is_some_and(|client| known(&client.name))
    }
}

impl Limit {
    /// Whether what the head says is covered, but for the endpoint; exemptions last.
    pub(crate) fn covers_head(&self, head: &HeadFacts, traits: &Traits<'_>) -> Result<(), Mismatch> {
        let Cover { paths, tiers, headers, cidrs, .. } = &self.cover;
        let check = |holds: bool, why| if holds { Ok(()) } else { Err(why) };
        check(paths.is_empty() || paths.iter().any(|path| is_path(path, head.path)), Mismatch::Path)?;
        check(tiers.is_empty() || traits.tier.is_some_and(|tier| is_listed(tiers, tier)), Mismatch::Tier)?;
        check(headers.iter().all(|header| head.headers.contains(header)), Mismatch::Header)?;
        check(
            cidrs.is_empty() || cidrs.iter().any(|cidr| cidr.contains(&head.client_ip.to_canonical())),
            Mismatch::Address,
        )?;
        let exempted = traits.exempted.as_ref();
        let holds = |place: &usize| exempted.is_some_and(|all| all.0.get(*place).is_some_and(|holds| *holds));
        check(!self.exemptions.iter().any(holds), Mismatch::Exempt)
    }

    /// Whether it covers the endpoint.
    pub(crate) fn covers_endpoint(&self, class: EndpointClass) -> bool {
        self.cover.endpoints.contains(&class)
    }

    /// Whether it covers the model. A limit that lists models covers no request without one.
    pub(crate) fn covers_model(&self, model: Option<&ModelName>) -> bool {
        let models = &self.cover.models;
        models.is_empty() || model.is_some_and(|name| models.iter().any(|pattern| pattern.matches(name)))
    }
}

fn is_listed(sorted: &[String], name: &str) -> bool {
    sorted.binary_search_by(|listed| listed.as_str().cmp(name)).is_ok()
}

/// A prefix covers whole segments: `/v1` covers `/v1` and `/v1/messages`, not `/v12`.
fn is_path(listed: &PathDoc, path: &str) -> bool {
    match listed {
        PathDoc::Exact(exact) => path == exact,
        PathDoc::Prefix(prefix) => {
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    }
}
