//! Who is told of each pool for which something has changed.

use corral_wire::PoolRef;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use parking_lot::Mutex;

/// Those who listen. One that no longer does is dropped at the next word.
#[derive(Debug, Default)]
pub struct Listeners(Mutex<Vec<UnboundedSender<PoolRef>>>);

impl Listeners {
    /// Another one: it is told every pool from now on. It has to read, for what it has not read is kept for it.
    pub fn listen(&self) -> UnboundedReceiver<PoolRef> {
        let (sender, receiver) = unbounded();
        self.0.lock().push(sender);
        receiver
    }

    /// Tells all of them.
    pub fn tell(&self, pool: &PoolRef) {
        self.0.lock().retain(|listener| listener.unbounded_send(pool.clone()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_still_listen_are_told() {
        let pool = PoolRef { namespace: "llm".to_owned(), name: "chat".to_owned() };
        let listeners = Listeners::default();
        listeners.tell(&pool);
        let (mut first, second) = (listeners.listen(), listeners.listen());
        drop(second);
        listeners.tell(&pool);
        assert_eq!(first.try_recv().ok(), Some(pool));
        assert!(first.try_recv().is_err(), "nobody was told what was before, nor twice");
        assert_eq!(listeners.0.lock().len(), 1);
    }
}
