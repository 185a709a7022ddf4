//! Long lists to embed, in parts of at most [`MOST`] inputs: Ollama works on all inputs of a request side by side, and
//! whoever else wants the slot would wait for all of them.
//!
//! Each part waits for a slot of its own at the head of its client's requests, so others come in between. The client sees
//! one answer, which no byte tells from Ollama's to the whole. It is one request all the while: it is charged once, for
//! all of it or for what was done; the first part that fails ends it, and the client gets that part's answer.
//!
//! The answer is held until its last part is there, for only then is it known whether there is one: up to [`MOST_HELD`]
//! of it, within the room for bodies. What grows beyond that goes out as it comes, and can only break off after that, as
//! any answer can that has begun. One part's answer may have [`MOST_OF_A_PART`].

mod holding;
mod join;
mod room;
mod split;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::oneshot;

use self::join::Joined;
use self::room::with_room;
pub(crate) use self::split::{MOST, Split};
use super::Proxy;
use super::departed::Flight;
use super::dispatch::{self, Begun, Incoming, Sent, stopped};
use super::ending::End;
use super::forward::{Failed, Hold, deliver, kind_of, note_end};
use super::inspect::{Held, Stretch};
use super::listener::{Answer, Listener};
use super::retry::{self, Tries};
use super::route::Ending;
use super::tokens::How;
use super::upstream::Order;

/// The most bytes of one answer that are held.
const MOST_HELD: usize = 32 << 20;
/// The most bytes of the answer to one part: 16 vectors of 65,536 numbers.
const MOST_OF_A_PART: usize = 16 << 20;
/// Ollama says the length of answers up to this, and sends longer ones in chunks.
const TOLD_LENGTH: usize = 2048;

/// A request that is to be sent in parts.
pub(crate) struct Job {
    pub(crate) order: Order,
    pub(crate) split: Split,
    pub(crate) hold: Hold,
}

/// Begins it. Dropping what is returned tells it that the client has left.
pub(crate) fn start(proxy: &Arc<Proxy>, job: Job) -> oneshot::Receiver<Result<Answer, Failed>> {
    let (reply, answer) = oneshot::channel();
    let proxy = Arc::clone(proxy);
    let Job { order, split, hold } = job;
    tokio::spawn(async move {
        let mut course = Course {
            proxy: &proxy,
            order,
            split,
            listener: Listener::Waits(reply),
            tries: Tries::begin(&proxy),
            joined: Joined::new(split.form),
            room: proxy.budget.open(),
            head: HeaderMap::new(),
            done: 0,
            charged: 0,
        };
        course.run(hold).await;
    });
    answer
}

/// A request on its way, part by part.
struct Course<'a> {
    proxy: &'a Proxy,
    order: Order,
    split: Split,
    listener: Listener,
    tries: Tries,
    joined: Joined,
    /// The room of what is held of the answer.
    room: Held,
    /// The headers of Ollama's first answer.
    head: HeaderMap,
    /// Inputs that are done.
    done: usize,
    /// Their tokens, as far as the queue was told.
    charged: u64,
}

impl Course<'_> {
    async fn run(&mut self, mut hold: Hold) {
        let (body, mut from) = (self.order.body(), self.split.start());
        hold.part(0);
        while let Some(part) = self.split.part(&body, from) {
            from = part.end;
            let Some(worked) = self.part(hold, &part).await else { return };
            hold = worked;
            if self.done == self.split.count() {
                return self.finish(hold).await;
            }
            let Some(next) = self.next(hold).await else { return };
            hold = next;
        }
    }

    /// Has one part answered. None: it is over, and whoever asked has been told, or has left.
    async fn part(&mut self, mut hold: Hold, part: &Stretch) -> Option<Hold> {
        let edits = self.split.edits(part, self.done + part.count == self.split.count());
        loop {
            let request = self.order.request(&edits);
            let sent = dispatch::send(self.proxy, request, hold.need(), &mut self.listener).await;
            if !self.tries.once_more(self.proxy, &sent, &self.listener) {
                return self.conclude(sent, hold, part).await;
            }
            drop(sent);
            hold = retry::anew(self.proxy, hold, &mut self.listener).await?;
        }
    }

    async fn conclude(&mut self, sent: Sent<'_>, mut hold: Hold, part: &Stretch) -> Option<Hold> {
        match sent {
            Sent::Begun(begun) if begun.head.status.is_success() => {
                return self.take_in(*begun, hold, part).await;
            }
            Sent::Begun(begun) => self.refuse(*begun, hold).await,
            Sent::Failed(error) => self.give_up(hold, error.into()).await,
            Sent::Unwanted => self.leave(&mut hold, part),
            // What was done before has been settled already.
            Sent::Unsent | Sent::Stalled => {}
        }
        None
    }

    /// Ollama's error is the answer, unless another one has begun.
    async fn refuse(&mut self, begun: Begun<'_>, hold: Hold) {
        match std::mem::replace(&mut self.listener, Listener::Told) {
            listener @ Listener::Waits(_) => deliver(self.proxy, begun, hold, Ending::Whole, listener).await,
            listener => {
                self.listener = listener;
                self.give_up(hold, Failed::Broken).await;
            }
        }
    }

    /// Before whoever asked hears of it: what it does next finds everything settled.
    async fn give_up(&mut self, hold: Hold, why: Failed) {
        drop(hold);
        self.listener.fail(why).await;
    }

    /// Who asked has left, with one part on the way: of that, as much is charged as was estimated.
    fn leave(&self, hold: &mut Hold, part: &Stretch) {
        let share = hold.estimate(part.count, self.split.count());
        hold.part(self.tokens(hold).saturating_add(share));
        hold.settle(How::Left, self.proxy);
    }

    /// Tokens of what is done: as Ollama counted them, else as estimated.
    fn tokens(&self, hold: &Hold) -> u64 {
        let estimate = || hold.estimate(self.done, self.split.count());
        self.joined.tokens().unwrap_or_else(estimate)
    }

    /// Reads the answer to one part, and joins it to what is there.
    async fn take_in(&mut self, begun: Begun<'_>, mut hold: Hold, part: &Stretch) -> Option<Hold> {
        let Begun { flight, head, body, lease, .. } = begun;
        if let Some(flight) = &flight {
            flight.answered(kind_of(&head));
        }
        hold.answered(head.status);
        let answer = match read(self.proxy, body, flight.as_ref(), &mut self.listener).await {
            Read::Whole(answer) => answer,
            Read::Left => {
                self.leave(&mut hold, part);
                return None;
            }
            Read::Ended(end) => {
                note_end(self.proxy, end);
                self.give_up(hold, failed(end)).await;
                return None;
            }
        };
        if let Some(lease) = lease {
            self.proxy.upstream.give_back(lease);
        }
        if let Err(error) = self.joined.add(&answer, part.count) {
            tracing::warn!(%error, "an answer of Ollama's cannot be joined to others");
            note_end(self.proxy, End::Broken);
            self.give_up(hold, Failed::Broken).await;
            return None;
        }
        if self.head.is_empty() {
            self.head = head.headers;
            self.head.remove(CONTENT_LENGTH);
        }
        self.done += part.count;
        Some(hold)
    }

    /// Gives the slot back, and waits for the next one. What is too long to be held goes out meanwhile.
    async fn next(&mut self, mut hold: Hold) -> Option<Hold> {
        let tokens = self.tokens(&hold);
        hold.part(tokens);
        hold.settle_part();
        let spent = tokens.saturating_sub(std::mem::replace(&mut self.charged, tokens));
        let next = hold.cost_of((self.split.count() - self.done).min(MOST), self.split.count(), self.proxy);
        let going_out = self.overflow();
        let frames = match &self.listener {
            Listener::Hears(body) => Some(body.frames.clone()),
            Listener::Waits(_) | Listener::Told => None,
        };
        let sending = async {
            if let (Some(frames), Some(bytes)) = (frames, going_out) {
                // One that has left is noticed before anything else is sent to Ollama.
                let _ = frames.send(Ok(bytes)).await;
            }
        };
        let waiting = retry::again(self.proxy, hold, spent, next, &mut self.listener);
        let (hold, ()) = tokio::join!(waiting, sending);
        hold
    }

    /// What is not held any more.
    fn overflow(&mut self) -> Option<Bytes> {
        let held = self.joined.held();
        let fits = held <= MOST_HELD && self.room.grow_to(held).is_some();
        if fits && matches!(self.listener, Listener::Waits(_)) {
            return None;
        }
        self.listener.open(StatusCode::OK, std::mem::take(&mut self.head), None, true)?;
        self.room = self.proxy.budget.open();
        Some(self.joined.front())
    }

    /// All parts are there.
    async fn finish(&mut self, mut hold: Hold) {
        hold.complete(&self.joined.counts(), self.proxy);
        self.proxy.core.tally().completed();
        // The slot goes on before the answer does, however slowly that is read.
        drop(hold);
        let joined = std::mem::replace(&mut self.joined, Joined::new(self.split.form));
        let rest = joined.rest();
        let length = (rest.len() <= TOLD_LENGTH).then_some(rest.len() as u64);
        let head = std::mem::take(&mut self.head);
        let Some(body) = self.listener.open(StatusCode::OK, head, length, true) else { return };
        // One that has left by now wants nothing more.
        let _ = body
            .frames
            .send(Ok(with_room(rest, std::mem::replace(&mut self.room, self.proxy.budget.open()))))
            .await;
    }
}

/// What came of the body of an answer.
enum Read {
    Whole(Bytes),
    /// Whoever asked has left.
    Left,
    /// It ended before its end, or never would.
    Ended(End),
}

/// Reads the answer to a part.
async fn read(
    proxy: &Proxy,
    mut body: Incoming,
    flight: Option<&Flight<'_>>,
    listener: &mut Listener,
) -> Read {
    let health = &proxy.core.health;
    let (cut, stopped) = (health.until_cut(), stopped(proxy, flight));
    tokio::pin!(cut, stopped);
    let mut whole = BytesMut::new();
    loop {
        let frame = tokio::select! {
            biased;
            () = listener.gone() => return Read::Left,
            () = &mut cut => return Read::Ended(End::Drained),
            () = &mut stopped => return Read::Ended(End::Stalled),
            frame = body.frame() => frame,
        };
        let Some(frame) = frame else { return Read::Whole(whole.freeze()) };
        let Ok(frame) = frame else { return Read::Ended(End::Broken) };
        health.upstream_answered();
        if let Some(flight) = flight {
            flight.pulse.beat();
        }
        let data = frame.into_data().unwrap_or_default();
        if whole.len() + data.len() > MOST_OF_A_PART {
            return Read::Ended(End::Broken);
        }
        whole.extend_from_slice(&data);
    }
}

fn failed(end: End) -> Failed {
    match end {
        End::Drained => Failed::Drained,
        End::Stalled => Failed::Stalled,
        End::Closed | End::Broken => Failed::Broken,
    }
}
