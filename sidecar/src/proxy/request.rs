//! One request from its head to its answer, readable from top to bottom.
//!
//! A request that is itself at fault counts once in the request limits that its head decides, so that nothing is asked
//! for nothing. Some are charged to nobody:
//!
//! - what does not exist, by its path, as it is spelt, or for its method, and what is closed: saying so is all the work
//!   there is, no limit is about it, and a 429 would have its client ask again in vain;
//! - one for a foreign page: the page would spend what belongs to its visitor;
//! - one whose head is in doubt: so is who sent it. It ends its connection, which bounds how fast it comes again.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use corral_limiter::queue::{Due, Runner};
use corral_limiter::{HeadFacts, Nanos, Plan, Standing};
use corral_wire::Unauthenticated;
use corral_wire::forwarded::ELSEWHERE_HEADER;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body;

use super::admission::{Entered, Want};
use super::api_key::{self, Caller, NoClient};
use super::body::ReplyBody;
use super::cross_site::{self, Page};
use super::discard::discard;
use super::embed::{self, Split};
use super::forward::{self, Failed, Hold, Job};
use super::headers::Reset;
use super::inspect::{self, Held, Shape};
use super::listener::Answer;
use super::record::Record;
use super::refused::Refused;
use super::residency::Need;
use super::respond::{self, Context};
use super::route::{self, Action, Endpoint, Family, Route};
use super::tokens::{Account, Reckoning};
use super::upstream::{NoAnswer, Order};
use super::{Connection, Proxy, cors, head, headers, identify, limits, patience, resent};
use crate::clients::Had;
use crate::clock::unix_millis;
use crate::core::Core;
use crate::health::Unavailable;

/// The parts of Ollama's head that go on to the client. The rest is about its connection, or about itself.
const PASSED_ON: [HeaderName; 4] = [CONTENT_TYPE, CACHE_CONTROL, RETRY_AFTER, VARY];

const ELSEWHERE: HeaderName = HeaderName::from_static(ELSEWHERE_HEADER);

/// Answers one request of a connection.
pub(crate) async fn handle<B>(
    proxy: Arc<Proxy>,
    connection: Arc<Connection>,
    request: Request<B>,
) -> Response<ReplyBody>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (parts, mut body) = request.into_parts();
    let plan = proxy.core.plan();
    let trusted = plan.as_deref().map_or(&[][..], Plan::trusted_proxies);
    let vouched = proxy.core.vouchers.client(&parts, unix_millis());
    let peer = vouched.ok().flatten().unwrap_or(connection.peer);
    let client_ip = identify::client_ip(peer, &parts.headers, trusted);
    let id = head::request_id(&parts.headers).map_or_else(|| proxy.dice.request_id(), str::to_owned);
    let record = Record::begin(&proxy.core, id, client_ip, parts.method.clone());
    let mut life = Life {
        proxy: &proxy,
        family: route::family_of(parts.uri.path()),
        local: connection.local,
        early: connection.early,
        page: Page::of(&parts.headers),
        by: if matches!(vouched, Ok(Some(_))) { By::Activator { elsewhere: false } } else { By::Client },
        plan,
        facts: None,
        patience: None,
        is_retry: false,
        body_bytes: 0,
        body_read: false,
        shape: Shape::default(),
        runner: 0,
        split: None,
        reckoning: None,
        record,
    };
    let fault = connection.next_fault().map(|fault| fault.head).or(vouched.err());
    let outcome = match fault {
        Some(fault) => Err(fault.into()),
        None => life.run_unless_cut(&parts, &mut body).await,
    };
    let ends = fault.is_some() || outcome.as_ref().is_err_and(Refused::closes) || proxy.core.health.closing();
    let in_step = !ends && (life.body_read || discard(body, &parts.headers, &proxy.settings).await);
    let closes = !in_step || proxy.core.health.closing() || proxy.core.clock().now() >= connection.ages_out;
    life.answer(outcome, closes)
}

/// Who has sent it here.
enum By {
    Client,
    /// It can ask another pod, and should where nobody is served here and nobody was charged.
    Activator {
        elsewhere: bool,
    },
}

/// What is known of a request while it lives.
struct Life<'a> {
    proxy: &'a Arc<Proxy>,
    family: Family,
    /// Our address that it came in on.
    local: IpAddr,
    /// Its connection is older than the drain, if there is one.
    early: bool,
    /// For which it was sent.
    page: Page,
    by: By,
    /// By which it is known who asks; none before the first.
    plan: Option<Arc<Plan>>,
    /// Once its limits are looked at.
    facts: Option<HeadFacts>,
    /// For how long its client waits, if it says so.
    patience: Option<Nanos>,
    /// It says that it is a retry.
    is_retry: bool,
    /// The length of its body.
    body_bytes: u64,
    /// Nothing of the body is left on the connection.
    body_read: bool,
    /// What it asks of its model's runner.
    shape: Shape,
    /// The same for the queue, [`Runner::shape`].
    runner: u64,
    /// In which parts it is sent, if it is too long to be sent as a whole.
    split: Option<Split>,
    /// What its tokens will probably come to.
    reckoning: Option<Reckoning>,
    record: Record,
}

/// What a request comes to, if it is not refused.
enum Outcome {
    /// Ollama answers.
    Answer(Answer),
    /// Corral itself does, in JSON.
    Own(Bytes),
    /// A browser is told what pages may send.
    Preflight,
}

impl Life<'_> {
    /// A shutdown whose time is over ends whatever has no answer yet.
    async fn run_unless_cut<B>(&mut self, parts: &Parts, body: B) -> Result<Outcome, Refused>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let proxy = self.proxy;
        tokio::select! {
            biased;
            outcome = self.run(&parts.method, &parts.uri, &parts.headers, body) => outcome,
            () = proxy.core.health.until_cut() => {
                self.record.drained();
                Err(Refused::Unavailable(Unavailable::Draining))
            }
        }
    }

    async fn run<B>(
        &mut self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: B,
    ) -> Result<Outcome, Refused>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        head::check(headers)?;
        cross_site::check(&self.page, headers, self.local)?;
        if cors::is_preflight(&self.page, method, headers) {
            return route::exists(uri).map(|()| Outcome::Preflight).map_err(Refused::from);
        }
        let route = route::find(method, uri)?;
        let endpoint = route.endpoint;
        self.family = endpoint.family;
        self.record.endpoint = Some(endpoint);
        if let Err(refused) = self.available(endpoint.action) {
            // An open breaker has words of its own, and says when to come back.
            if let By::Activator { elsewhere } = &mut self.by {
                *elsewhere = matches!(refused, Refused::Unavailable(_));
            }
            return Err(refused);
        }
        let entered = self.enter(endpoint, headers)?;
        self.patience = patience::of(headers);
        self.is_retry = resent::is_retry(headers);
        let read = match self.read(&route, headers, body).await {
            Ok(read) => read,
            Err(refused) => {
                if refused.is_bad_request() {
                    entered.bad_request();
                }
                return Err(refused);
            }
        };
        self.count_look(endpoint);
        let hold = self.admit(entered).await?;
        if let (Action::Limits, Some(caller)) = (endpoint.action, &self.facts) {
            return Ok(Outcome::Own(limits::show(&self.proxy.core, caller)));
        }
        self.exchange(&route, method, headers, read, hold).await.map(Outcome::Answer)
    }

    /// Finds out who asks, and takes what its head needs of the limits.
    fn enter(&mut self, endpoint: &Endpoint, headers: &HeaderMap) -> Result<Entered, Refused> {
        let core = &self.proxy.core;
        let facts = self.facts.insert(HeadFacts::new(self.record.client_ip, endpoint.class, endpoint.path));
        if let Some(plan) = &self.plan {
            match api_key::caller(headers, plan, &core.digesters) {
                Caller::Known(client) => {
                    self.record.client = Some(Arc::clone(&client));
                    facts.client = Some(client);
                }
                Caller::Unknown(why) => admit_unknown(core, plan, why, facts)?,
            }
            facts.headers = identify::trusted_headers(headers, plan.headers());
        }
        Entered::enter(core, facts).map_err(|refusal| {
            self.count_look(endpoint);
            Refused::Limit(refusal)
        })
    }

    /// Counts what an activator would hold, which knows no limits: what wakes a pool keeps it awake.
    fn count_look(&self, endpoint: &Endpoint) {
        if endpoint.is_look() {
            self.proxy.core.tally().looked();
        }
    }

    /// Whether requests are served at all just now. What limits apply can be asked whenever there are any.
    fn available(&self, action: Action) -> Result<(), Refused> {
        let core = &self.proxy.core;
        let why = match action {
            Action::Limits => core.plan().is_none().then_some(Unavailable::NoPlan),
            _ if core.plan().is_none() => Some(core.health.unavailable().unwrap_or(Unavailable::NoPlan)),
            _ => self.unavailable(),
        };
        why.map_or(Ok(()), |why| Err(self.turned_away(why)))
    }

    /// A breaker says for how long it is open.
    fn turned_away(&self, why: Unavailable) -> Refused {
        match why {
            Unavailable::BreakerOpen => self.shut(),
            why => Refused::Unavailable(why),
        }
    }

    fn shut(&self) -> Refused {
        let core = &self.proxy.core;
        Refused::Shut { wait: core.health.shut_for(core.clock().now()).unwrap_or(Nanos::ZERO) }
    }

    /// An answer that began before a drain has not said that its connection closes, so its client comes again on it and
    /// cannot know better. It is served once more, for now each answer says so; closing instead would lose a request
    /// that is on its way.
    fn unavailable(&self) -> Option<Unavailable> {
        let health = &self.proxy.core.health;
        match health.unavailable() {
            Some(Unavailable::Draining) if self.early => health.unavailable_but_for_drain(),
            why => why,
        }
    }

    /// Reads and checks the body, where one belongs.
    async fn read<B>(
        &mut self,
        route: &Route<'_>,
        headers: &HeaderMap,
        body: B,
    ) -> Result<Option<Held>, Refused>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let action = route.endpoint.action;
        if matches!(action, Action::Look | Action::Limits) {
            self.record.model = route.model.map(inspect::parse_model).transpose()?;
            return if head::announces_body(headers) { Err(Refused::UnwantedBody) } else { Ok(None) };
        }
        if head::is_encoded(headers) {
            return Err(Refused::Encoded);
        }
        let held = inspect::read(body, &self.proxy.budget, &self.proxy.settings).await?;
        self.body_read = true;
        self.body_bytes = held.bytes().len() as u64;
        let asked = inspect::scan_body(held.bytes(), action)?;
        let reads = route.endpoint.reads();
        self.shape = asked.tuning.shape(reads);
        let context = self.plan.as_deref().and_then(|plan| plan.tokens().context_length);
        self.runner = asked.tuning.beyond(context).shape(reads).digest();
        self.record.stream = asked.stream.unwrap_or(route.endpoint.streams_by_default);
        let facts = self.facts.as_ref();
        self.reckoning = facts.and_then(|facts| self.proxy.reckon(&asked, route.endpoint, facts));
        self.split = Split::of(&asked.knobs, route.endpoint);
        if let (Some(split), Some(reckoning)) = (&self.split, &mut self.reckoning) {
            reckoning.in_parts(embed::MOST, split.count());
        }
        self.record.model = Some(asked.model);
        Ok(Some(held))
    }

    /// Decides every limit, and waits for a slot where one is needed.
    async fn admit(&mut self, entered: Entered) -> Result<Hold, Refused> {
        let Some(reckoning) = self.reckoning.take() else {
            let passed = entered.pass(self.record.model.as_ref()).await;
            return passed.map(Hold::Passed).map_err(Refused::from);
        };
        let need = Need { model: reckoning.model().clone(), shape: std::mem::take(&mut self.shape) };
        let (want, estimate) = (self.want(&reckoning, &need), reckoning.estimate());
        self.proxy.models.used(&self.proxy.core, &need.model);
        let health = &self.proxy.core.health;
        self.record.queues = true;
        let permit = tokio::select! {
            // First, so that no slot that comes back is taken by one who would be sent to what has stopped.
            biased;
            () = health.until_stopped() => {
                let why = health.unavailable().unwrap_or(Unavailable::Stalled);
                Err(Refused::Unavailable(why))
            }
            permit = entered.slot(want, estimate) => permit.map_err(Refused::from),
        };
        self.record.queues = false;
        self.record.waited = match &permit {
            Ok(permit) => Some(permit.waited()),
            Err(Refused::Shed(shedding)) => Some(shedding.waited),
            Err(_) => None,
        };
        let permit = permit?;
        let account = Box::new(Account::new(reckoning, Arc::clone(&self.record.spent)));
        Ok(Hold::Slot { permit, need, account })
    }

    /// What it asks of the queue.
    fn want(&self, reckoning: &Reckoning, need: &Need) -> Want {
        let cost_model = self.plan.as_deref().map(Plan::cost_model).unwrap_or_default();
        let needs = reckoning.needs();
        Want {
            runner: Runner { model: need.model.clone(), shape: self.runner },
            cost: reckoning.cost(cost_model),
            cost_model,
            slot_time: reckoning.slot_time(),
            bytes: self.body_bytes,
            due: self.patience.map(|patience| Due { at: self.record.begun.plus(patience), needs }),
            is_retry: self.is_retry,
        }
    }

    /// Has the exchange with Ollama, up to the head of its answer.
    async fn exchange(
        &self,
        route: &Route<'_>,
        method: &Method,
        headers: &HeaderMap,
        body: Option<Held>,
        hold: Hold,
    ) -> Result<Answer, Refused> {
        let order = Order::new(route, method.clone(), headers, body);
        let answer = match self.split {
            Some(split) => embed::start(self.proxy, embed::Job { order, split, hold }),
            None => forward::start(self.proxy, Job { order, hold, ending: route.endpoint.ending }),
        };
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Failed::Stalled)) => Err(Refused::Unavailable(Unavailable::Stalled)),
            Ok(Err(Failed::Drained)) => Err(Refused::Unavailable(Unavailable::Draining)),
            Ok(Err(Failed::NoAnswer(NoAnswer::Shut))) => Err(self.shut()),
            Ok(Err(Failed::Denied(denied))) => Err(denied.into()),
            Ok(Err(error)) => {
                tracing::warn!(id = %self.record.id, %error, "no answer from Ollama");
                Err(Refused::NoAnswer)
            }
            Err(_) => Err(Refused::NoAnswer),
        }
    }

    /// Turns the outcome into the answer, and hands the record on to its body.
    fn answer(mut self, outcome: Result<Outcome, Refused>, closes: bool) -> Response<ReplyBody> {
        self.count_for_client(outcome.as_ref().err());
        let standings = self.standings(outcome.as_ref().err());
        let mut response = match outcome {
            Ok(Outcome::Answer(answer)) => return self.pass_on(answer, &standings, closes),
            Ok(Outcome::Own(bytes)) => own(bytes, &standings, self.family),
            Ok(Outcome::Preflight) => respond::preflight(),
            Err(refused) => {
                self.record.refused = Some(refused.outcome());
                self.refuse(&refused, &standings)
            }
        };
        self.seal(response.headers_mut(), closes);
        self.record.status = Some(response.status().as_u16());
        response.map(|bytes| ReplyBody::whole(bytes, self.record))
    }

    /// Counts the request among those of its client; what it takes of Ollama is counted when that is known.
    fn count_for_client(&self, refused: Option<&Refused>) {
        let Some(facts) = &self.facts else { return };
        let turned_away = |refused: &Refused| {
            matches!(refused.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::UNAUTHORIZED)
        };
        let had = Had { requests: 1, refused: u64::from(refused.is_some_and(turned_away)), ..Had::default() };
        self.proxy.core.count_for(facts, &had);
    }

    fn pass_on(mut self, answer: Answer, standings: &[Standing], closes: bool) -> Response<ReplyBody> {
        self.record.status = Some(answer.status.as_u16());
        self.record.fate = Some(answer.fate);
        let mut out = HeaderMap::with_capacity(8);
        for name in PASSED_ON {
            if let Some(value) = answer.headers.get(&name) {
                out.insert(name, value.clone());
            }
        }
        if answer.status == StatusCode::SERVICE_UNAVAILABLE && !out.contains_key(RETRY_AFTER) {
            respond::insert_busy(&mut out, &self.proxy.dice);
        }
        // Of a HEAD, the length of what a GET would bring.
        if let Some(length) = answer.headers.get(CONTENT_LENGTH).filter(|_| !answer.shrinks) {
            out.insert(CONTENT_LENGTH, length.clone());
        }
        headers::insert(&mut out, standings, Reset::Full, self.family);
        self.seal(&mut out, closes);
        let mut response = Response::new(ReplyBody::stream(answer.frames, answer.length, self.record));
        *response.status_mut() = answer.status;
        *response.headers_mut() = out;
        response
    }

    fn refuse(&self, refused: &Refused, standings: &[Standing]) -> Response<Bytes> {
        if let Some(reason) = refused.reason() {
            self.proxy.core.metrics.refused(reason);
        }
        let context =
            Context { family: self.family, request_id: &self.record.id, standings, dice: &self.proxy.dice };
        respond::refuse(refused, &context)
    }

    /// How the client stands now: told with what was admitted, and with every 429.
    fn standings(&self, refused: Option<&Refused>) -> Vec<Standing> {
        let decided = refused.is_none_or(|refused| refused.status() == StatusCode::TOO_MANY_REQUESTS);
        let facts = self.facts.as_ref().filter(|_| decided);
        facts.map_or_else(Vec::new, |facts| self.proxy.core.standing(facts, self.record.model.as_ref()))
    }

    /// What every answer carries.
    fn seal(&self, out: &mut HeaderMap, closes: bool) {
        respond::insert_id(out, &self.record.id);
        if matches!(self.by, By::Activator { elsewhere: true }) {
            out.insert(ELSEWHERE, HeaderValue::from_static("1"));
        }
        if let Some(waited) = self.record.waited {
            respond::insert_queue_time(out, waited);
        }
        cors::insert(out, &self.page);
        if closes {
            out.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Whoever has no known key is charged by address, be it only for the answer that it needs one: that much is counted
/// where addresses are told apart, and nowhere else.
fn admit_unknown(core: &Arc<Core>, plan: &Plan, why: NoClient, facts: &HeadFacts) -> Result<(), Refused> {
    let rejects = plan.unauthenticated() == Unauthenticated::Reject;
    if rejects || plan.digest_key().is_some() {
        core.metrics.unauthenticated(why);
    }
    if !rejects {
        return Ok(());
    }
    core.turn_away(facts)?;
    Err(Refused::Unauthenticated(why))
}

fn own(bytes: Bytes, standings: &[Standing], family: Family) -> Response<Bytes> {
    let mut response = Response::new(bytes);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers::insert(response.headers_mut(), standings, Reset::Full, family);
    response
}
