//! Structured fields (RFC 9651), as far as the `RateLimit` headers use them: a list of named items with parameters.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};

/// One item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The string that the item is.
    pub name: String,
    /// Its parameters: integers, or anything else as text.
    pub parameters: BTreeMap<String, Value>,
}

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An integer.
    Integer(i64),
    /// A string, token or byte sequence, as it is written.
    Text(String),
    /// A parameter without a value.
    True,
}

impl Item {
    /// An integer parameter.
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.parameters.get(name) {
            Some(Value::Integer(value)) => Some(*value),
            _ => None,
        }
    }
}

/// Parses a whole list strictly.
pub fn parse_list(text: &str) -> anyhow::Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut rest = text;
    loop {
        let (item, after) = item(rest)?;
        items.push(item);
        let after = after.trim_start_matches([' ', '\t']);
        if after.is_empty() {
            return Ok(items);
        }
        let next = after.strip_prefix(',').with_context(|| format!("a comma before {after:?}"))?;
        rest = next.trim_start_matches([' ', '\t']);
        ensure!(!rest.is_empty(), "a comma at the end of {text:?}");
    }
}

fn item(text: &str) -> anyhow::Result<(Item, &str)> {
    let (name, mut rest) = string(text)?;
    let mut parameters = BTreeMap::new();
    while let Some(after) = rest.strip_prefix(';') {
        let (key, after) = key(after.trim_start_matches(' '))?;
        let (value, after) = match after.strip_prefix('=') {
            Some(after) => value(after)?,
            None => (Value::True, after),
        };
        parameters.insert(key.to_owned(), value);
        rest = after;
    }
    Ok((Item { name, parameters }, rest))
}

fn string(text: &str) -> anyhow::Result<(String, &str)> {
    let rest = text.strip_prefix('"').with_context(|| format!("a string, not {text:?}"))?;
    let mut parsed = String::new();
    let mut letters = rest.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((parsed, rest.get(at + 1..).unwrap_or_default())),
            '\\' => match letters.next() {
                Some((_, escaped @ ('"' | '\\'))) => parsed.push(escaped),
                other => bail!("a bad escape {other:?} in {text:?}"),
            },
            ' '..='~' => parsed.push(letter),
            other => bail!("{other:?} may not stand in a string"),
        }
    }
    bail!("an open string in {text:?}")
}

fn key(text: &str) -> anyhow::Result<(&str, &str)> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.*".contains(c);
    let end = text.find(|c| !allowed(c)).unwrap_or(text.len());
    let (key, rest) = text.split_at(end);
    ensure!(key.starts_with(|c: char| c.is_ascii_lowercase() || c == '*'), "a key, not {text:?}");
    Ok((key, rest))
}

fn value(text: &str) -> anyhow::Result<(Value, &str)> {
    if text.starts_with('"') {
        let (value, rest) = string(text)?;
        return Ok((Value::Text(value), rest));
    }
    let end = text.find([';', ',', ' ']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    ensure!(!word.is_empty(), "a value before {text:?}");
    let digits = word.strip_prefix('-').unwrap_or(word);
    if digits.starts_with(|c: char| c.is_ascii_digit()) {
        ensure!(digits.len() <= 15 && digits.bytes().all(|b| b.is_ascii_digit()), "an integer, not {word:?}");
        return Ok((Value::Integer(word.parse()?), rest));
    }
    Ok((Value::Text(word.to_owned()), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_items_with_parameters_is_read() {
        let items = parse_list("\"a.requests\";r=9;t=3, \"b\\\"\";q=10;w=60;pk=:AQ==:").unwrap();
        assert_eq!(items.len(), 2);
        assert_eq!((items[0].integer("r"), items[0].integer("t")), (Some(9), Some(3)));
        assert_eq!(items[1].name, "b\"");
        assert_eq!(items[1].parameters["pk"], Value::Text(":AQ==:".into()));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", "a;r=1", "\"a\";r=", "\"a\",", "\"a\" \"b\"", "\"a\";R=1", "\"a\";r=1.5", "\"a"] {
            assert!(parse_list(text).is_err(), "{text}");
        }
    }
}
