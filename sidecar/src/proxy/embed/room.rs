//! Bytes that keep their room until they have gone out.

use bytes::Bytes;

use crate::proxy::inspect::Held;

struct Roomy {
    bytes: Bytes,
    _room: Held,
}

impl AsRef<[u8]> for Roomy {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The same bytes; when the last of them is dropped, so is their room.
pub(super) fn with_room(bytes: Bytes, room: Held) -> Bytes {
    Bytes::from_owner(Roomy { bytes, _room: room })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::inspect::BodyBudget;

    #[test]
    fn room_comes_back_with_the_last_of_the_bytes() {
        let budget = BodyBudget::new(10);
        let mut held = budget.open();
        held.grow_to(7).unwrap();
        let mut bytes = with_room(Bytes::from_static(b"0123456"), held);
        let front = bytes.split_to(3);
        drop(bytes);
        assert_eq!((&front[..], budget.free()), (&b"012"[..], 3));
        drop(front);
        assert_eq!(budget.free(), 10);
    }
}
