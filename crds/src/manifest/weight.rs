//! Bounds on a file before anything is made of it: YAML can say much in a few bytes.
//!
//! The parser takes time by how deep brackets nest times how long a document is, and aliases repeat what they stand for, so the brackets
//! of each document are counted in its text, and all that it says is weighed with every alias followed.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// The most opening brackets of a document, whether they nest or not, in texts and comments too.
pub(super) const MAX_BRACKETS: usize = 4000;
/// The most brackets times bytes of a document: 1000 in 256 KiB.
const MAX_WORK: usize = 1000 * 256 * 1024;
/// The most bytes of all that a document says, and one for each of its values.
pub(super) const MAX_WEIGHT: usize = 4 * super::MAX_FILE_BYTES;

/// In which line, from 1, a document has one bracket too many, or too many for its length.
pub(super) fn bristling(text: &str) -> Option<usize> {
    let (mut brackets, mut bytes) = (0_usize, 0_usize);
    for (before, line) in text.lines().enumerate() {
        // Nowhere in YAML, not even in a text of many lines, can such a line be anything else than a new document.
        if line == "---" || line.starts_with("--- ") {
            (brackets, bytes) = (0, 0);
        }
        brackets += line.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
        bytes += line.len();
        if brackets > MAX_BRACKETS || brackets.saturating_mul(bytes) > MAX_WORK {
            return Some(before + 1);
        }
    }
    None
}

/// Weighs what is read; fails once nothing is left of the weight allowed.
pub(super) struct Weigh<'a>(pub(super) &'a mut usize);

impl Weigh<'_> {
    fn take<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        let left = self.0.checked_sub(bytes.saturating_add(1));
        *self.0 = left.ok_or_else(|| E::custom("says too much: its aliases repeat too much"))?;
        Ok(())
    }

    fn again(&mut self) -> Weigh<'_> {
        Weigh(self.0)
    }
}

impl<'de> DeserializeSeed<'de> for Weigh<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Weigh<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.take(0)?;
        while map.next_key_seed(self.again())?.is_some() {
            map.next_value_seed(self.again())?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.take(0)?;
        while items.next_element_seed(self.again())?.is_some() {}
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(mut self, tagged: A) -> Result<(), A::Error> {
        let ((), value) = tagged.variant_seed(self.again())?;
        value.newtype_variant_seed(self)
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.take(text.len())
    }

    fn visit_none<E: Error>(mut self) -> Result<(), E> {
        self.take(0)
    }

    fn visit_some<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }

    fn visit_unit<E: Error>(mut self) -> Result<(), E> {
        self.take(0)
    }

    fn visit_bool<E: Error>(mut self, _: bool) -> Result<(), E> {
        self.take(0)
    }

    fn visit_i64<E: Error>(mut self, _: i64) -> Result<(), E> {
        self.take(0)
    }

    fn visit_u64<E: Error>(mut self, _: u64) -> Result<(), E> {
        self.take(0)
    }

    fn visit_i128<E: Error>(mut self, _: i128) -> Result<(), E> {
        self.take(0)
    }

    fn visit_u128<E: Error>(mut self, _: u128) -> Result<(), E> {
        self.take(0)
    }

    fn visit_f64<E: Error>(mut self, _: f64) -> Result<(), E> {
        self.take(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(text: &str) -> usize {
        let mut left = 10_000;
        let source = serde_yaml::Deserializer::from_str(text);
        Weigh(&mut left).deserialize(source).unwrap();
        10_000 - left
    }

    #[test]
    fn everything_weighs_something_and_an_alias_what_it_stands_for() {
        assert_eq!(weight("[1, -1, 1.5, true, ~, 99999999999999999999]"), 7);
        assert_eq!(weight("{ab: cde}"), 1 + 3 + 4);
        assert_eq!(weight("!tag ab"), 4 + 3);
        assert_eq!(weight("[&a [abc], *a, *a]"), 1 + 3 * 5);
    }

    #[test]
    fn brackets_are_counted_for_each_document() {
        let half = "[".repeat(MAX_BRACKETS / 2);
        assert_eq!(bristling(&format!("{half}{half}")), None);
        assert_eq!(bristling(&format!("---\n{half}\n--- {half}\n{half}")), None);
        assert_eq!(bristling(&format!("---\n{half}\n--- {half}\n{half}{{")), Some(4));
        assert_eq!(bristling(&format!("{half}\n---{half}{{")), Some(2));
        assert_eq!(bristling(&format!("{half}\n{}", "x".repeat(200_000))), Some(2));
        assert_eq!(bristling(&"x: [y]\n".repeat(3000)), None);
    }
}
