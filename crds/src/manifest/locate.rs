//! The line of a field: reads the document again, follows the field's path, and stops there on purpose.
//!
//! The parser tells the place of an error and of nothing else, so at the end of the path an error is made.

use std::{fmt, ops::ControlFlow};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The line, from 1, where the field at `path` has its value; where the field is not there, that of what should hold it.
pub(super) fn line(text: &str, document: usize, path: &str) -> Option<usize> {
    let steps = steps(path);
    let lengths = (0..=steps.len()).rev();
    let mut lines = lengths.filter_map(|length| {
        let source = serde_yaml::Deserializer::from_str(text).nth(document.checked_sub(1)?)?;
        let error = Follow(steps.get(..length)?).deserialize(source).err()?;
        error.location().map(|location| location.line())
    });
    lines.next()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

/// `spec.limits[0].per` is a field, a field, an item and a field. A dot within a key is taken for a step: the line of the
/// object around it is told then.
fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (field, items) = part.split_once('[').unwrap_or((part, ""));
        steps.push(Step::Field(field));
        let places = items.split(['[', ']']).filter_map(|place| place.parse().ok());
        steps.extend(places.map(Step::Item));
    }
    steps
}

/// Follows the steps that are left; fails at their end.
struct Follow<'a>(&'a [Step<'a>]);

impl<'de> DeserializeSeed<'de> for Follow<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'a> Follow<'a> {
    /// Goes into the step if it is the next; else passes by.
    fn next(&self, step: Step<'_>) -> ControlFlow<Follow<'a>> {
        match self.0 {
            [first, rest @ ..] if *first == step => ControlFlow::Break(Follow(rest)),
            _ => ControlFlow::Continue(()),
        }
    }

    fn here<T, E: Error>(&self, otherwise: T) -> Result<T, E> {
        if self.0.is_empty() { Err(E::custom("here")) } else { Ok(otherwise) }
    }
}

impl<'de> Visitor<'de> for Follow<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.here(())?;
        while let Some(key) = map.next_key::<String>()? {
            match self.next(Step::Field(&key)) {
                ControlFlow::Break(follow) => map.next_value_seed(follow)?,
                ControlFlow::Continue(()) => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.here(())?;
        for place in 0.. {
            let seen = match self.next(Step::Item(place)) {
                ControlFlow::Break(follow) => items.next_element_seed(follow)?,
                ControlFlow::Continue(()) => items.next_element::<IgnoredAny>()?.map(drop),
            };
            if seen.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.here(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.here(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.here(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.here(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.here(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.here(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_and_a_missing_one_is_where_it_should_be() {
        let text = "a: 1\nb:\n- c: 2\n- c: 3\n  d:\n    e: true\n";
        let lines = ["a", "b[1].c", "b[1].d.e", "b[1].nothing", "nothing"].map(|path| line(text, 1, path));
        assert_eq!(lines, [Some(1), Some(4), Some(6), Some(4), Some(1)]);
        assert_eq!(line(text, 2, "a"), None);
    }
}
