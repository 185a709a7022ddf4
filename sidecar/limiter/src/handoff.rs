//! Hands one thing from one thread to another, once: a slot to the request that waits for it.
//!
//! Unlike a signal, it cannot be missed and cannot be spent twice: what was given is in the cell until it is taken,
//! comes back to the giver when the taker has gone, and is dropped with the taker that never took it. The giver never
//! blocks, so it may give while it holds the lock of its queue; nothing of the caller's is dropped under the lock of
//! the cell, so what is handed over may take the lock of the queue when it is dropped.
//!
//! ```
//! # use std::{future::Future, pin::pin, task::{Context, Poll, Waker}};
//! use corral_limiter::handoff::pair;
//!
//! let (giver, mut taker) = pair();
//! assert_eq!(giver.give("slot 1"), Ok(()));
//! assert_eq!(taker.take(), Some("slot 1"));
//!
//! let (giver, taker) = pair();
//! drop(taker);
//! assert_eq!(giver.give("slot 2"), Err("slot 2"));
//! ```
#![cfg_attr(
    not(loom),
    expect(clippy::disallowed_types, reason = "loom can stand in for the locks of std alone")
)]

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

#[cfg(loom)]
use loom::sync::{Arc, Mutex, MutexGuard};
#[cfg(not(loom))]
use std::sync::{Arc, Mutex, MutexGuard};

/// A cell for one thing, in two halves.
pub fn pair<T>() -> (Giver<T>, Taker<T>) {
    let cell = Arc::new(Cell(Mutex::new(State::Open(None))));
    (Giver { cell: Arc::clone(&cell) }, Taker { cell })
}

/// The half that gives. Dropped without giving, the taker learns that nothing comes.
pub struct Giver<T> {
    cell: Arc<Cell<T>>,
}

/// The half that takes, as a future: what was given, or `None` when the giver has gone without giving, or it was taken
/// already.
#[must_use = "what is given to a taker that is dropped comes back"]
pub struct Taker<T> {
    cell: Arc<Cell<T>>,
}

struct Cell<T>(Mutex<State<T>>);

enum State<T> {
    /// Nothing was given yet; whom to wake when it is.
    Open(Option<Waker>),
    /// It lies here.
    Given(T),
    /// One half has gone, or all is done: nothing is given any more.
    Closed,
}

impl<T> Cell<T> {
    /// Each change leaves the state whole, so that one who panicked beside it spoilt nothing.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts another state in, if nothing was given yet, and wakes who waits for it.
    fn resolve(&self, next: State<T>) -> Result<(), State<T>> {
        let mut state = self.lock();
        let State::Open(waker) = &mut *state else { return Err(next) };
        let waker = waker.take();
        *state = next;
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }
}

impl<T> Giver<T> {
    /// Puts it into the cell and wakes the taker.
    ///
    /// # Errors
    /// The taker has gone: the thing comes back, for somebody else.
    pub fn give(self, thing: T) -> Result<(), T> {
        match self.cell.resolve(State::Given(thing)) {
            Err(State::Given(thing)) => Err(thing),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whether the taker is still there. It may go at any moment after, so only [`Self::give`] knows.
    pub fn is_wanted(&self) -> bool {
        matches!(*self.cell.lock(), State::Open(_))
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        // After `give` there is nothing to close.
        let _given_or_gone = self.cell.resolve(State::Closed);
    }
}

impl<T> Taker<T> {
    /// What was given, if it was and was not taken yet, without waiting for it.
    pub fn take(&mut self) -> Option<T> {
        let mut state = self.cell.lock();
        if !matches!(*state, State::Given(_)) {
            return None;
        }
        match mem::replace(&mut *state, State::Closed) {
            State::Given(thing) => Some(thing),
            State::Open(_) | State::Closed => None,
        }
    }

    /// Closed or given: what there is. Open: wakes this one from now on, and tells whom before.
    fn take_or_wait(&mut self, waker: &Waker) -> Poll<Option<T>> {
        let mut state = self.cell.lock();
        match mem::replace(&mut *state, State::Closed) {
            State::Given(thing) => Poll::Ready(Some(thing)),
            State::Closed => Poll::Ready(None),
            State::Open(before) => {
                let known = before.as_ref().is_some_and(|before| before.will_wake(waker));
                let (kept, old) = if known { (before, None) } else { (Some(waker.clone()), before) };
                *state = State::Open(kept);
                drop(state);
                // A waker may hold the last of a task, and that of anything: it goes when the lock is free.
                drop(old);
                Poll::Pending
            }
        }
    }
}

impl<T> Future for Taker<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.take_or_wait(context.waker())
    }
}

impl<T> Drop for Taker<T> {
    fn drop(&mut self) {
        let last = mem::replace(&mut *self.cell.lock(), State::Closed);
        // The lock is free again: what was given may be dropped now, whatever that sets off.
        drop(last);
    }
}

impl<T> fmt::Debug for Giver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Giver").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Taker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taker").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use super::*;

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn counted() -> (Arc<Counted>, Waker) {
        let counted = Arc::new(Counted::default());
        (Arc::clone(&counted), Waker::from(counted))
    }

    fn poll<T>(taker: &mut Taker<T>, waker: &Waker) -> Poll<Option<T>> {
        pin!(taker).poll(&mut Context::from_waker(waker))
    }

    /// Tells when it is dropped.
    struct Told(Arc<AtomicUsize>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn who_waits_is_woken_once_and_gets_what_was_given_once() {
        let ((woken, waker), (giver, mut taker)) = (counted(), pair());
        assert_eq!(poll(&mut taker, &waker), Poll::Pending);
        assert_eq!(poll(&mut taker, &waker), Poll::Pending);
        assert!(giver.is_wanted());
        assert_eq!(giver.give(7), Ok(()));
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert_eq!(poll(&mut taker, &waker), Poll::Ready(Some(7)));
        assert_eq!((taker.take(), poll(&mut taker, &waker)), (None, Poll::Ready(None)));
    }

    #[test]
    fn only_the_last_waker_is_woken() {
        let ((first, one), (second, other), (giver, mut taker)) = (counted(), counted(), pair::<()>());
        assert!(poll(&mut taker, &one).is_pending() && poll(&mut taker, &other).is_pending());
        drop(giver);
        assert_eq!((first.0.load(Ordering::SeqCst), second.0.load(Ordering::SeqCst)), (0, 1));
        assert_eq!(poll(&mut taker, &other), Poll::Ready(None));
    }

    #[test]
    fn what_nobody_takes_comes_back_and_what_is_left_lying_is_dropped_with_the_taker() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let (giver, taker) = pair();
        drop(taker);
        assert!(!giver.is_wanted());
        let back = giver.give(Told(Arc::clone(&dropped))).unwrap_err();
        let (giver, taker) = pair();
        assert!(giver.give(back).is_ok());
        assert_eq!(dropped.load(Ordering::SeqCst), 0);
        drop(taker);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_was_given_stays_though_the_giver_has_gone() {
        let (giver, mut taker) = pair();
        assert_eq!(taker.take(), None);
        assert_eq!(giver.give("slot"), Ok(()));
        assert_eq!(poll(&mut taker, Waker::noop()), Poll::Ready(Some("slot")));
    }

    #[test]
    fn a_giver_that_goes_leaves_nobody_waiting() {
        let (giver, mut taker) = pair::<u8>();
        drop(giver);
        assert_eq!((taker.take(), poll(&mut taker, Waker::noop())), (None, Poll::Ready(None)));
    }

    /// A slot that takes the lock of the queue when it is dropped: dead-locks if the cell drops it under its own.
    #[test]
    fn what_is_dropped_may_use_the_cell_of_another() {
        struct Nested(Option<Giver<u8>>);
        impl Drop for Nested {
            fn drop(&mut self) {
                assert_eq!(self.0.take().unwrap().give(1), Ok(()));
            }
        }
        let ((inner, mut next), (giver, taker)) = (pair(), pair());
        assert!(giver.give(Nested(Some(inner))).is_ok());
        drop(taker);
        assert_eq!(next.take(), Some(1));
    }
}
