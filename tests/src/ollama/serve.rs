//! The server: connections, and the life of one request from the door to its last frame.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::door::{self, Entry};
use super::fault::{Fault, Script};
use super::generation::{Ending, Extent, Generation, Rhythm, Step, pause};
use super::job::{self, Job, Refusal, Work};
use super::record::{Arrival, Outcome, Record};
use super::route::{self, Endpoint, Route};
use super::sched::{Listed, NoRunner, Scheduler, Slot};
use super::settings::{Gate, Settings, Wedge};
use super::voice::{self, Voice};
use super::{SharedPace, VERSION, metadata};

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Answer = Result<Response<Body>, io::Error>;

/// Everything that a server's connections share.
pub(crate) struct World {
    settings: Settings,
    pub(crate) scheduler: Scheduler,
    pub(crate) record: Record,
    pub(crate) script: Script,
    pub(crate) pace: SharedPace,
    pub(crate) gate: Mutex<Option<Gate>>,
    pub(crate) wedge: Wedge,
}

impl World {
    /// Must be called inside a runtime: it starts the loader.
    pub(crate) fn new(settings: Settings) -> Self {
        let record = Record::default();
        let pace = Arc::new(Mutex::new(settings.pace));
        let wedge = Wedge::default();
        let scheduler = Scheduler::start(&settings, record.clone(), pace.clone(), wedge.clone());
        let (script, gate) = (Script::default(), Mutex::new(None));
        Self { settings, scheduler, record, script, pace, gate, wedge }
    }

    pub(crate) fn forget_models(&self) {
        for Listed { model, .. } in self.scheduler.listed() {
            self.scheduler.unload(&model);
        }
    }
}

/// Serves until it is aborted, which breaks all connections.
pub(crate) async fn accept(listener: TcpListener, world: Arc<World>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                // Without it the kernel could merge two tokens into one packet.
                let _ = socket.set_nodelay(true);
                let connected = world.record.connected();
                let world = world.clone();
                connections.spawn(async move {
                    let number = connected.number;
                    let service = service_fn(move |request| serve(world.clone(), number, request));
                    let mut builder = http1::Builder::new();
                    builder.timer(TokioTimer::new()).header_read_timeout(None);
                    // A broken connection is the client's affair.
                    let _ = builder.serve_connection(TokioIo::new(socket), service).await;
                    drop(connected);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(world: Arc<World>, connection: u64, request: Request<Incoming>) -> Answer {
    let entry = door::judge(request.headers(), request.uri());
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        world.record.body_broke();
        return Err(io::Error::other("the body never became whole"));
    };
    let target = parts.uri.path_and_query().map_or_else(|| "*".to_owned(), ToString::to_string);
    let arrival = Arrival {
        connection,
        method: parts.method.to_string(),
        target,
        headers: parts.headers.clone(),
        body: body.to_bytes(),
        at: Instant::now(),
    };
    world.record.arrived(arrival.clone());
    let Entry::Open(origin) = entry else { return Ok(plain(StatusCode::FORBIDDEN, None, "")) };
    let path = parts.uri.path();
    let mut answer = match route::find(&parts.method, path) {
        Route::To(endpoint) => answer(&world, endpoint, path, &arrival).await?,
        Route::Redirect(to) => redirect(&to),
        Route::Unknown => plain(StatusCode::NOT_FOUND, Some("text/plain"), "404 page not found"),
        Route::WrongMethod => {
            plain(StatusCode::METHOD_NOT_ALLOWED, Some("text/plain"), "405 method not allowed")
        }
    };
    if let Some(origin) = origin.and_then(|origin| HeaderValue::from_str(&origin).ok()) {
        answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    Ok(answer)
}

async fn answer(world: &Arc<World>, endpoint: Endpoint, path: &str, arrival: &Arrival) -> Answer {
    let fault = world.script.next(endpoint);
    if let Some(answer) = faulty(world, endpoint, fault.as_ref()).await {
        return answer;
    }
    if endpoint.infers() {
        return match job::read(endpoint, &arrival.body, &world.settings) {
            Ok(job) => infer(world, job, fault, arrival.at).await,
            Err(refusal) => Ok(refused(endpoint, &refusal)),
        };
    }
    Ok(describe(world, endpoint, path, arrival))
}

/// Faults that need no slot, and any fault of an endpoint that runs no model.
async fn faulty(world: &Arc<World>, endpoint: Endpoint, fault: Option<&Fault>) -> Option<Answer> {
    let answer = match fault? {
        Fault::Busy => Ok(refused(endpoint, &busy(false))),
        Fault::Close => Err(io::Error::other("scripted: closed without an answer")),
        Fault::WrongJson => {
            Ok(plain(StatusCode::OK, Some("application/json; charset=utf-8"), "{\"model\": <html>"))
        }
        Fault::Stall { after: 0, lasts } if !endpoint.infers() => {
            sleep(*lasts).await;
            return None;
        }
        _ => return None,
    };
    if endpoint.infers() {
        world.record.ended(Outcome::Faulted);
    }
    Some(answer)
}

fn busy(stream: bool) -> Refusal {
    let message = "server busy, please try again.  maximum pending requests exceeded";
    Refusal::late(StatusCode::SERVICE_UNAVAILABLE, message, stream)
}

async fn infer(world: &Arc<World>, job: Job, fault: Option<Fault>, arrived: Instant) -> Answer {
    if matches!(job.work, Work::Unload) {
        world.scheduler.unload(&job.model.name);
        return Ok(json(voice::unloaded(job.endpoint, &job.spelling)));
    }
    let slot = match place(world, &job).await {
        Ok(slot) => slot,
        Err(NoRunner::Busy) => {
            world.record.ended(Outcome::Busy);
            return Ok(refused(job.endpoint, &busy(job.stream)));
        }
        Err(NoRunner::Failed(message)) => {
            world.record.ended(Outcome::LoadFailed);
            let refusal = Refusal::late(StatusCode::INTERNAL_SERVER_ERROR, message, job.stream);
            return Ok(refused(job.endpoint, &refusal));
        }
    };
    match (&job.work, slot) {
        (Work::Embed { inputs, base64, prompt_tokens }, slot) => {
            if let Some(slot) = slot {
                embed(world, *inputs, slot).await;
            }
            let (media, body) = voice::vectors(job.endpoint, &job.spelling, *inputs, *base64, *prompt_tokens);
            if job.endpoint != Endpoint::Embeddings {
                world.record.told(*prompt_tokens, 0);
            }
            Ok(full(StatusCode::OK, Some(media), body))
        }
        (Work::Say { bound, most, prompt_tokens, usage }, Some(slot)) => {
            let voice = voice::of(&job, *usage, *bound);
            let extent =
                Extent { most: *most, stops_after_z: job.model.stops_after_z, prompt_tokens: *prompt_tokens };
            let gate = world.gate.lock().clone();
            let rhythm = Rhythm { pace: world.pace.clone(), gate, wedge: world.wedge.clone() };
            let generation = Generation::new(extent, slot, rhythm, fault, world.record.clone(), arrived);
            say(&job, generation, voice).await
        }
        _ => {
            world.record.ended(Outcome::Finished);
            Ok(json(voice::loaded(job.endpoint, &job.spelling)))
        }
    }
}

/// A slot of the model's runner, or the runner alone for a request without input.
async fn place(world: &World, job: &Job) -> Result<Option<Slot>, NoRunner> {
    let options = job.options.clone();
    match job.work {
        Work::Load | Work::Unload | Work::Embed { inputs: 0, .. } => {
            world.scheduler.visit(&job.model, options).await.map(|()| None)
        }
        _ => world.scheduler.slot(&job.model, options).await.map(Some),
    }
}

/// The real server gives each input to the runner by itself, all at once; with its one slot they go through it one after
/// the other, before anybody who comes later.
async fn embed(world: &Arc<World>, inputs: usize, slot: Slot) {
    let mut ending = Ending::new(world.record.clone());
    for _ in 0..inputs {
        let pace = *world.pace.lock();
        pause(pace.prompt + pace.token).await;
        world.record.embedded();
    }
    drop(slot);
    ending.outcome = Outcome::Finished;
}

/// Status and headers go out with the first token: an error before it has a status of its own.
async fn say(job: &Job, mut generation: Generation, mut voice: Box<dyn Voice>) -> Answer {
    if !job.stream {
        return whole(job, generation, voice).await;
    }
    let first = match generation.step().await {
        Step::Crash => return Ok(crashed(job)),
        Step::Break => return Err(io::Error::other("scripted: broken before the first token")),
        step => step,
    };
    let media = voice.stream_type();
    let keeps_alive = voice.keeps_alive();
    let opening = speak(&first, voice.as_mut());
    let goes_on = matches!(first, Step::Token(_));
    let talk = Talk { opening: Some(opening), goes_on, generation, voice };
    let frames = stream::unfold(talk, |mut talk| async move { talk.next().await.map(|frame| (frame, talk)) });
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    if keeps_alive {
        keep_alive(&mut answer);
    }
    Ok(answer)
}

/// A stream under way.
struct Talk {
    opening: Option<Result<Bytes, io::Error>>,
    goes_on: bool,
    generation: Generation,
    voice: Box<dyn Voice>,
}

impl Talk {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, io::Error>> {
        let said = match self.opening.take() {
            Some(opening) => opening,
            None if self.goes_on => {
                let step = self.generation.step().await;
                self.goes_on = matches!(step, Step::Token(_));
                speak(&step, self.voice.as_mut())
            }
            None => return None,
        };
        Some(said.map(Frame::data))
    }
}

fn speak(step: &Step, voice: &mut dyn Voice) -> Result<Bytes, io::Error> {
    match step {
        Step::Token(text) => Ok(voice.token(text)),
        Step::End(finish) => Ok(voice.end(finish)),
        Step::Crash => Ok(voice.crash()),
        Step::Silence => Ok(Bytes::new()),
        Step::Break => Err(io::Error::other("scripted: broken in the middle")),
    }
}

async fn whole(job: &Job, mut generation: Generation, mut voice: Box<dyn Voice>) -> Answer {
    loop {
        match generation.step().await {
            Step::Token(_) => {}
            Step::End(finish) => {
                return Ok(full(StatusCode::OK, Some(voice.whole_type()), voice.whole(&finish)));
            }
            Step::Crash => return Ok(crashed(job)),
            Step::Silence | Step::Break => {
                return Err(io::Error::other("scripted: broken before the answer"));
            }
        }
    }
}

fn crashed(job: &Job) -> Response<Body> {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    refused(job.endpoint, &Refusal::late(status, voice::CRASHED, job.stream))
}

fn describe(world: &Arc<World>, endpoint: Endpoint, path: &str, arrival: &Arrival) -> Response<Body> {
    let settings = &world.settings;
    match endpoint {
        Endpoint::Root => plain(StatusCode::OK, Some("text/plain; charset=utf-8"), "Ollama is running"),
        Endpoint::Version => json(format!("{{\"version\":\"{VERSION}\"}}").into()),
        Endpoint::Tags => json(metadata::tags(settings)),
        Endpoint::Ps => json(metadata::ps(settings, &world.scheduler.listed())),
        Endpoint::Models => full(StatusCode::OK, Some("application/json"), metadata::models(settings)),
        Endpoint::Show => match job::named(&arrival.body, settings) {
            Ok(model) => json(metadata::show(&model)),
            Err(refusal) => refused(endpoint, &refusal),
        },
        Endpoint::Model => {
            let spelling = path.rsplit('/').next().unwrap_or_default();
            match job::listed(spelling, settings) {
                Ok(_) => full(StatusCode::OK, Some("application/json"), metadata::model(spelling)),
                Err(refusal) => refused(endpoint, &refusal),
            }
        }
        _ => json(Bytes::from_static(b"{\"status\":\"success\"}")),
    }
}

/// An error in the family's shape, headers and all.
fn refused(endpoint: Endpoint, refusal: &Refusal) -> Response<Body> {
    let mut body = voice::error(endpoint, refusal.status, &refusal.message);
    let family = matches!(
        endpoint,
        Endpoint::ChatCompletions
            | Endpoint::Completions
            | Endpoint::Responses
            | Endpoint::Messages
            | Endpoint::OpenAiEmbeddings
            | Endpoint::Model
    );
    if refusal.early && body.ends_with(b"\n") {
        body.truncate(body.len() - 1);
    }
    let media = if family && !refusal.early { "application/json" } else { "application/json; charset=utf-8" };
    let mut answer = full(refusal.status, Some(media), body);
    if refusal.stream && matches!(endpoint, Endpoint::Messages | Endpoint::Responses) {
        keep_alive(&mut answer);
    }
    answer
}

fn keep_alive(answer: &mut Response<Body>) {
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
}

fn redirect(to: &str) -> Response<Body> {
    let mut answer = plain(StatusCode::TEMPORARY_REDIRECT, None, "");
    if let Ok(to) = HeaderValue::from_str(to) {
        answer.headers_mut().insert(header::LOCATION, to);
    }
    answer
}

fn json(body: Bytes) -> Response<Body> {
    full(StatusCode::OK, Some("application/json; charset=utf-8"), body)
}

fn plain(status: StatusCode, media: Option<&'static str>, body: &'static str) -> Response<Body> {
    full(status, media, Bytes::from_static(body.as_bytes()))
}

fn full(status: StatusCode, media: Option<&'static str>, body: Bytes) -> Response<Body> {
    let body = Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    if let Some(media) = media {
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    }
    answer
}
