//! One request to an activator from its head to its answer, readable from top to bottom.

use std::sync::Arc;

use bytes::Bytes;
use corral_limiter::{HeadFacts, Plan};
use corral_wire::Unauthenticated;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body;
use hyper::body::Incoming;

use super::Activator;
use super::forward::{self, Order, Sent};
use super::hold::{Reading, Seat, Turn};
use super::line::Ask;
use super::not_held::{NotHeld, Why};
use super::reply::Reply;
use crate::clock::unix_millis;
use crate::core::Core;
use crate::proxy::api_key::{self, Caller};
use crate::proxy::cross_site::{self, Page};
use crate::proxy::discard::discard;
use crate::proxy::inspect::{self, BodyFault, Held};
use crate::proxy::record::Record;
use crate::proxy::refused::Refused;
use crate::proxy::respond::{self, Context};
use crate::proxy::route::{self, Action, Endpoint, Family};
use crate::proxy::upstream::Lease;
use crate::proxy::{Connection, cors, head, identify};

/// So many pods may have had a request without answering it: each may have worked on it, and charged for it.
const MAX_FAILURES: u32 = 2;
/// So many pods are asked what is not worth waiting for.
const MAX_ASKED: u32 = 3;
/// What Ollama itself says at `/`.
const HOME: &[u8] = b"Ollama is running";

/// Answers one request of a connection.
pub(super) async fn handle<B>(
    activator: Arc<Activator>,
    connection: Arc<Connection>,
    request: Request<B>,
) -> Response<Reply>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (parts, mut body) = request.into_parts();
    let core = &activator.core;
    let plan = core.plan();
    let trusted = plan.as_deref().map_or(&[][..], Plan::trusted_proxies);
    let client_ip = identify::client_ip(connection.peer, &parts.headers, trusted);
    let id = head::request_id(&parts.headers).map_or_else(|| activator.dice.request_id(), str::to_owned);
    let record = Record::begin(core, id, client_ip, parts.method.clone());
    let mut life = Life {
        activator: &activator,
        connection: &connection,
        family: route::family_of(parts.uri.path()),
        page: Page::of(&parts.headers),
        plan,
        body_read: false,
        record,
    };
    // Nobody speaks for a client to an activator.
    let vouched = core.vouchers.client(&parts, unix_millis()).err();
    let outcome = match connection.next_fault().map(|fault| fault.head).or(vouched) {
        Some(fault) => Err(fault.into()),
        None => life.run_unless_cut(&parts, &mut body).await,
    };
    let ends = outcome.as_ref().is_err_and(Refused::closes);
    let in_step = !ends && (life.body_read || discard(body, &parts.headers, &activator.settings).await);
    let closes = !in_step || core.health.closing() || core.clock().now() >= connection.ages_out;
    life.answer(outcome, closes)
}

/// What is known of a request while it lives.
struct Life<'a> {
    activator: &'a Arc<Activator>,
    connection: &'a Connection,
    family: Family,
    page: Page,
    plan: Option<Arc<Plan>>,
    /// Nothing of the body is left on the connection.
    body_read: bool,
    record: Record,
}

/// What a request comes to, if it is not refused.
enum Outcome {
    /// A pod answers.
    Pod(Box<(Response<Incoming>, Lease)>, Seat),
    /// What is asked for at `/` can be said here.
    Home,
    /// A browser is told what pages may send.
    Preflight,
}

impl Life<'_> {
    /// A shutdown whose time is over ends whatever has no answer yet.
    async fn run_unless_cut<B>(&mut self, parts: &Parts, body: B) -> Result<Outcome, Refused>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let activator = self.activator;
        tokio::select! {
            biased;
            outcome = self.run(parts, body) => outcome,
            () = activator.core.health.until_cut() => {
                self.record.drained();
                Err(Refused::NotHeld(activator.hold.refusal(Why::Draining)))
            }
        }
    }

    async fn run<B>(&mut self, parts: &Parts, body: B) -> Result<Outcome, Refused>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        head::check(&parts.headers)?;
        cross_site::check(&self.page, &parts.headers, self.connection.local)?;
        if cors::is_preflight(&self.page, &parts.method, &parts.headers) {
            return route::exists(&parts.uri).map(|()| Outcome::Preflight).map_err(Refused::from);
        }
        let route = route::find(&parts.method, &parts.uri)?;
        let endpoint = route.endpoint;
        self.family = endpoint.family;
        self.record.endpoint = Some(endpoint);
        let facts = self.whose(endpoint, &parts.headers)?;
        if !endpoint.is_held() {
            self.without_body(None, &parts.headers)?;
            return self.at_once(endpoint.action, parts).await;
        }
        let claim = self.activator.core.lock().limiter.place(&facts);
        let mut ask = Ask { flow: claim.flow, priority: claim.priority, bytes: 0 };
        let (held, reading) = self.read(endpoint.action, route.model, &parts.headers, ask, body).await?;
        let bytes = held.as_ref().map_or_else(Bytes::new, |held| held.bytes().clone());
        ask.bytes = bytes.len() as u64;
        // What was being read is all there: its room there is another's, and the line has its own.
        drop(reading);
        let order = Order::new(parts, bytes, self.connection.peer, &self.record.id);
        self.hand_on(&order, ask).await
    }

    /// What never waits, and wakes nobody: a pod says it if one can be had, and else it is said here.
    async fn at_once(&mut self, action: Action, parts: &Parts) -> Result<Outcome, Refused> {
        let hold = &self.activator.hold;
        let order = Order::new(parts, Bytes::new(), self.connection.peer, &self.record.id);
        for _ in 0..MAX_ASKED {
            let Some(seat) = hold.pass() else { break };
            match order.send(self.activator, &seat).await {
                Sent::Answered(answer) => return Ok(Outcome::Pod(answer, seat)),
                Sent::Elsewhere => seat.set_aside(),
                Sent::Failed => {}
                Sent::NoKey => break,
            }
        }
        match action {
            Action::Limits => Err(Refused::NotHeld(hold.refusal(Why::NoPod))),
            _ => Ok(Outcome::Home),
        }
    }

    /// Whose it is. Where nobody is served without a key, nobody starts a pod without one.
    fn whose(&mut self, endpoint: &Endpoint, headers: &HeaderMap) -> Result<HeadFacts, Refused> {
        let core: &Core = &self.activator.core;
        let mut facts = HeadFacts::new(self.record.client_ip, endpoint.class, endpoint.path);
        let Some(plan) = &self.plan else { return Ok(facts) };
        match api_key::caller(headers, plan, &core.digesters) {
            Caller::Known(client) => {
                self.record.client = Some(Arc::clone(&client));
                facts.client = Some(client);
            }
            Caller::Unknown(why) if plan.unauthenticated() == Unauthenticated::Reject => {
                core.metrics.unauthenticated(why);
                return Err(Refused::Unauthenticated(why));
            }
            Caller::Unknown(_) => {}
        }
        facts.headers = identify::trusted_headers(headers, plan.headers());
        Ok(facts)
    }

    /// Reads and checks the body, where one belongs. One that would have to be held has its room first.
    async fn read<B>(
        &mut self,
        action: Action,
        model: Option<&str>,
        headers: &HeaderMap,
        ask: Ask,
        body: B,
    ) -> Result<(Option<Held>, Option<Reading>), Refused>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if action == Action::Look {
            return self.without_body(model, headers).map(|()| (None, None));
        }
        if head::is_encoded(headers) {
            return Err(Refused::Encoded);
        }
        let activator = self.activator;
        let room = activator.hold.read(Ask { bytes: activator.room_of(&body), ..ask });
        if let Err(refused) = &room {
            self.count_arrival(Some(refused));
        }
        let mut reading = room.map_err(Refused::NotHeld)?;
        let held = match &mut reading {
            None => inspect::read(body, &activator.budget, &activator.settings).await?,
            Some(reading) => self.read_held(reading, body).await?,
        };
        self.body_read = true;
        let asked = inspect::scan_body(held.bytes(), action)?;
        self.record.stream = asked.stream.unwrap_or_default();
        self.record.model = Some(asked.model);
        Ok((Some(held), reading))
    }

    /// Reads a body that has its room, for as long as it has it.
    async fn read_held<B>(&self, reading: &mut Reading, body: B) -> Result<Held, Refused>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let activator = self.activator;
        let read = tokio::select! {
            biased;
            read = inspect::read(body, &activator.held_budget, &activator.held) => read.map_err(Refused::from),
            refused = reading.taken() => Err(Refused::NotHeld(refused)),
        };
        read.map_err(|refused| match refused {
            Refused::Body(BodyFault::TooLarge { .. }) => {
                Refused::NotHeld(activator.hold.refusal(Why::TooLarge))
            }
            refused => refused,
        })
        .inspect_err(|refused| {
            if let Refused::NotHeld(refused) = refused {
                self.count_arrival(Some(refused));
            }
        })
    }

    fn without_body(&mut self, model: Option<&str>, headers: &HeaderMap) -> Result<(), Refused> {
        self.record.model = model.map(inspect::parse_model).transpose()?;
        if head::announces_body(headers) { Err(Refused::UnwantedBody) } else { Ok(()) }
    }

    /// Waits for a pod and hands the request on, until one answers it.
    async fn hand_on(&mut self, order: &Order, ask: Ask) -> Result<Outcome, Refused> {
        let activator = self.activator;
        let arrived = activator.hold.arrive(ask);
        self.count_arrival(arrived.as_ref().err());
        let (visit, mut turn) = arrived.map_err(Refused::NotHeld)?;
        let mut failures = 0;
        loop {
            let seat = self.seat(turn).await?;
            match order.send(activator, &seat).await {
                Sent::Answered(answer) => return Ok(Outcome::Pod(answer, seat)),
                Sent::NoKey => return Err(Refused::NotHeld(activator.hold.refusal(Why::NoKey))),
                Sent::Elsewhere => seat.set_aside(),
                Sent::Failed => failures += 1,
            }
            if failures >= MAX_FAILURES {
                return Err(Refused::NoAnswer);
            }
            drop(seat);
            turn = activator.hold.again(visit);
        }
    }

    async fn seat(&mut self, turn: Turn) -> Result<Seat, Refused> {
        let ticket = match turn {
            Turn::Now(seat) => return Ok(seat),
            Turn::Wait(ticket) => ticket,
        };
        self.record.queues = true;
        let seat = ticket.seat().await;
        self.record.queues = false;
        self.record.waited = Some(self.activator.core.clock().now().since(self.record.begun));
        seat.map_err(|late| {
            if self.infers() {
                self.activator.core.tally().capacity_rejected();
            }
            Refused::NotHeld(late)
        })
    }

    /// What asks for slots is counted. So does the pod that it goes to: what is held is let go, and arrives there.
    fn count_arrival(&self, refused: Option<&NotHeld>) {
        let tally = self.activator.core.tally();
        if self.infers() && refused.is_none_or(|refused| refused.why.is_capacity()) {
            tally.arrived();
            if refused.is_some() {
                tally.capacity_rejected();
            }
        }
    }

    fn infers(&self) -> bool {
        self.record.endpoint.is_some_and(|endpoint| endpoint.action == Action::Infer)
    }

    /// Turns the outcome into the answer, and hands the record on to its body.
    fn answer(mut self, outcome: Result<Outcome, Refused>, closes: bool) -> Response<Reply> {
        let mut response = match outcome {
            Ok(Outcome::Pod(answer, seat)) => return self.pass_on(*answer, seat, closes),
            Ok(Outcome::Home) => home(),
            Ok(Outcome::Preflight) => respond::preflight(),
            Err(refused) => {
                self.record.refused = Some(refused.outcome());
                self.refuse(&refused)
            }
        };
        let headers = response.headers_mut();
        respond::insert_id(headers, &self.record.id);
        cors::insert(headers, &self.page);
        close(headers, closes);
        self.record.status = Some(response.status().as_u16());
        response.map(|bytes| Reply::own(bytes, self.record))
    }

    /// The head of a pod's answer says all that ours would.
    fn pass_on(
        mut self,
        (answer, lease): (Response<Incoming>, Lease),
        seat: Seat,
        closes: bool,
    ) -> Response<Reply> {
        let (mut head, body) = answer.into_parts();
        // Of a HEAD, the length of what a GET would bring.
        let length = head.headers.remove(CONTENT_LENGTH);
        forward::without_connection(&mut head.headers);
        head.headers.extend(length.map(|length| (CONTENT_LENGTH, length)));
        close(&mut head.headers, closes);
        self.record.status = Some(head.status.as_u16());
        Response::from_parts(head, Reply::of_pod(body, lease, seat, self.record))
    }

    fn refuse(&self, refused: &Refused) -> Response<Bytes> {
        if let Some(reason) = refused.reason() {
            self.activator.core.metrics.refused(reason);
        }
        let (request_id, dice) = (&self.record.id, &self.activator.dice);
        respond::refuse(refused, &Context { family: self.family, request_id, standings: &[], dice })
    }
}

fn close(headers: &mut HeaderMap, closes: bool) {
    if closes {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

fn home() -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(HOME));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
