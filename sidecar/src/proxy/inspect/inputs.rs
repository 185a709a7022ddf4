//! Where the inputs of a list to embed stand, so that it can be sent in parts without touching another byte.
//!
//! Only the ends of the whole list are kept, whatever its length; parts are cut one after the other, as they are needed.

use super::knobs::Raw;
use super::text;

/// A list of texts, or of lists of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inputs {
    /// Behind its opening bracket.
    pub(crate) open: usize,
    /// At its closing bracket.
    pub(crate) close: usize,
    /// How many inputs it has; at least one.
    pub(crate) count: usize,
}

/// Some inputs that stand one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Where the first begins.
    pub(crate) start: usize,
    /// Behind the last.
    pub(crate) end: usize,
    /// How many they are; at least one.
    pub(crate) count: usize,
}

impl Inputs {
    /// Of a value that was found to be valid: none if it is no list, is empty, or its inputs are not all of one kind.
    pub(crate) fn of(raw: Raw<'_>, tokens: bool) -> Option<Self> {
        let bytes = raw.text.as_bytes();
        let first = *bytes.get(after_space(bytes, 1))?;
        let fits = first == b'"' || (first == b'[' && tokens);
        if bytes.first() != Some(&b'[') || !fits {
            return None;
        }
        let (mut at, mut count) = (1, 0);
        while let Some(input) = next(bytes, at) {
            if bytes.get(input.start) != Some(&first) {
                return None;
            }
            (at, count) = (input.end, count + 1);
        }
        let closes = after_space(bytes, at) + 1 == bytes.len();
        (closes && count > 0).then_some(Self { open: raw.at + 1, close: raw.at + bytes.len() - 1, count })
    }

    /// The next inputs of a body from a place on, at most so many; none if there are no more.
    pub(crate) fn stretch(&self, body: &[u8], from: usize, most: usize) -> Option<Stretch> {
        let list = body.get(..self.close)?;
        let first = next(list, from)?;
        let mut part = Stretch { count: 1, ..first };
        while part.count < most {
            let Some(input) = next(list, part.end) else { break };
            part = Stretch { start: part.start, end: input.end, count: part.count + 1 };
        }
        Some(part)
    }
}

/// The first input from a place on; none where the list ends, or holds something else.
fn next(list: &[u8], from: usize) -> Option<Stretch> {
    let mut start = after_space(list, from);
    if list.get(start) == Some(&b',') {
        start = after_space(list, start + 1);
    }
    let rest = list.get(start..)?;
    let length = match rest.first()? {
        b'"' => text::end_of_string(rest.get(1..)?).ok()? + 2,
        b'[' => end_of_tokens(rest)?,
        _ => return None,
    };
    Some(Stretch { start, end: start + length, count: 1 })
}

/// The length of a list of whole numbers.
fn end_of_tokens(rest: &[u8]) -> Option<usize> {
    let inner = rest.get(1..)?;
    let length = inner.iter().position(|byte| !is_token(*byte))?;
    (inner.get(length) == Some(&b']')).then_some(length + 2)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b',' | b' ' | b'\t' | b'\n' | b'\r')
}

fn after_space(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::knobs_of;
    use super::*;

    /// The inputs of a body in parts of so many, each as it is written.
    fn parts(body: &str, tokens: bool, most: usize) -> Option<Vec<String>> {
        let inputs = Inputs::of(knobs_of(body).input?, tokens)?;
        let (mut parts, mut from, mut count) = (Vec::new(), inputs.open, 0);
        while let Some(part) = inputs.stretch(body.as_bytes(), from, most) {
            assert!(part.count <= most);
            parts.push(body[part.start..part.end].to_owned());
            (from, count) = (part.end, count + part.count);
        }
        assert_eq!(count, inputs.count, "{body}");
        assert_eq!(&body[inputs.open - 1..inputs.open], "[");
        assert_eq!(&body[inputs.close..=inputs.close], "]");
        Some(parts)
    }

    #[test]
    fn a_list_of_texts_is_cut_where_its_texts_end() {
        let of = |body| parts(body, false, 2);
        assert_eq!(of(r#"{"input":["a","b","c"]}"#).unwrap(), [r#""a","b""#, r#""c""#]);
        assert_eq!(of(r#"{"INPUT" : [ "a" , "b,]\"" ,"[" ] }"#).unwrap(), [r#""a" , "b,]\"""#, r#""[""#]);
        assert_eq!(of(r#"{"input":[""],"x":["y","z"]}"#).unwrap(), [r#""""#]);
    }

    #[test]
    fn a_list_of_lists_of_tokens_is_cut_only_where_those_are_read() {
        let body = r#"{"input":[[1,2],[ 3 ],[]]}"#;
        assert_eq!(parts(body, true, 2).unwrap(), ["[1,2],[ 3 ]", "[]"]);
        assert_eq!(parts(body, false, 2), None);
    }

    #[test]
    fn what_is_no_list_of_inputs_of_one_kind_is_left_alone() {
        for input in [
            "\"a\"",
            "null",
            "[]",
            "[ ]",
            "[1,2,3]",
            "[\"a\",1]",
            "[\"a\",[1]]",
            "[[1],\"a\"]",
            "[[1.5]]",
            "[[-1]]",
            "[[[1]]]",
            "[[\"a\"]]",
            "[{}]",
            "{}",
            "[null]",
            "[\"a\",null,\"b\"]",
            "1",
            "true",
        ] {
            assert_eq!(parts(&format!(r#"{{"model":"m","input":{input}}}"#), true, 2), None, "{input}");
        }
        assert_eq!(parts("{}", true, 2), None);
    }

    proptest! {
        #[test]
        fn every_input_is_in_exactly_one_part(
            texts in prop::collection::vec(".{0,6}", 1..40),
            most in 1_usize..20,
            pretty: bool,
        ) {
            let input = if pretty { serde_json::to_string_pretty(&texts) } else { serde_json::to_string(&texts) };
            let body = format!(r#"{{"a":["x"],"input":{},"b":["y"]}}"#, input.unwrap());
            let parts = parts(&body, false, most).unwrap();
            prop_assert_eq!(parts.len(), texts.len().div_ceil(most));
            let all: Vec<String> = serde_json::from_str(&format!("[{}]", parts.join(","))).unwrap();
            prop_assert_eq!(all, texts);
        }
    }
}
