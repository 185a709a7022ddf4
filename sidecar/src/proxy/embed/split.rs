//! Which requests are sent in parts, and what each part says: the client's own body, without the inputs of the others.

use smallvec::SmallVec;

use super::join::Form;
use crate::proxy::inspect::{Inputs, Knobs, Stretch};
use crate::proxy::route::Endpoint;
use crate::proxy::tokens::Edit;

/// The most inputs of one part.
pub(crate) const MOST: usize = 16;

/// A list that is too long for one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Split {
    pub(super) form: Form,
    inputs: Inputs,
    /// Where `keep_alive` stands, and how long it is, if only the last part may have it: one that said that the model is
    /// to be unloaded at once would have it loaded anew for each part.
    keep_alive: Option<(usize, usize)>,
}

impl Split {
    /// None for what goes to Ollama as a whole: another endpoint, a list that fits one part, and what is no list of inputs
    /// of one kind, which Ollama refuses.
    pub(crate) fn of(knobs: &Knobs<'_>, endpoint: &Endpoint) -> Option<Self> {
        let form = match endpoint.path {
            "/api/embed" => Form::Native,
            "/v1/embeddings" => Form::OpenAi,
            _ => return None,
        };
        let inputs = Inputs::of(knobs.input?, form == Form::OpenAi).filter(|inputs| inputs.count > MOST)?;
        let kept = knobs.keep_alive.filter(|raw| form == Form::Native && is_valid(raw.text));
        let keep_alive = kept.map(|raw| (raw.at, raw.text.len()));
        Some(Self { form, inputs, keep_alive })
    }

    /// How many inputs there are.
    pub(crate) fn count(&self) -> usize {
        self.inputs.count
    }

    /// The part that begins at a place of the body, or behind it; none if there is none any more.
    pub(super) fn part(&self, body: &[u8], from: usize) -> Option<Stretch> {
        self.inputs.stretch(body, from, MOST)
    }

    /// Where the first part begins.
    pub(super) fn start(&self) -> usize {
        self.inputs.open
    }

    /// What is to be changed in the body so that one part of the inputs is left.
    pub(super) fn edits(&self, part: &Stretch, last: bool) -> SmallVec<[Edit; 3]> {
        let cut =
            |from: usize, to: usize| Edit { at: from, length: to.saturating_sub(from), text: String::new() };
        let mut edits: SmallVec<[Edit; 3]> =
            SmallVec::from_iter([cut(self.inputs.open, part.start), cut(part.end, self.inputs.close)]);
        if let Some((at, length)) = self.keep_alive.filter(|_| !last) {
            edits.push(Edit { at, length, text: "null".to_owned() });
        }
        edits.sort_by_key(|edit| edit.at);
        edits
    }
}

/// Whether Ollama takes it for a time: a number of seconds, or a duration as Go writes one. What it refuses, it is to
/// refuse with the first part.
fn is_valid(raw: &str) -> bool {
    match raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        None => raw.starts_with(|first: char| first == '-' || first.is_ascii_digit()),
        Some(text) => is_duration(text.strip_prefix(['-', '+']).unwrap_or(text)),
    }
}

fn is_duration(text: &str) -> bool {
    if text == "0" {
        return true;
    }
    let (mut rest, mut terms) = (text, 0);
    while !rest.is_empty() {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let digits = rest.get(..rest.len() - number.len()).unwrap_or_default();
        let unit =
            ["ns", "us", "µs", "μs", "ms", "s", "m", "h"].into_iter().filter(|unit| number.starts_with(unit));
        let Some(unit) = unit.max_by_key(|unit| unit.len()) else { return false };
        if !digits.contains(|c: char| c.is_ascii_digit()) || digits.matches('.').count() > 1 {
            return false;
        }
        rest = number.get(unit.len()..).unwrap_or_default();
        terms += 1;
    }
    terms > 0
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::proxy::inspect;
    use crate::proxy::route;

    /// The bodies of the parts.
    fn parts(path: &str, body: &str) -> Option<Vec<String>> {
        let uri = path.parse().unwrap();
        let endpoint = route::find(&Method::POST, &uri).unwrap().endpoint;
        let asked = inspect::scan_body(body.as_bytes(), endpoint.action).unwrap();
        let split = Split::of(&asked.knobs, endpoint)?;
        let (mut from, mut left, mut bodies) = (split.start(), split.count(), Vec::new());
        while let Some(part) = split.part(body.as_bytes(), from) {
            left -= part.count;
            let mut text = body.to_owned();
            for edit in split.edits(&part, left == 0).iter().rev() {
                text.replace_range(edit.at..edit.at + edit.length, &edit.text);
            }
            bodies.push(text);
            from = part.end;
        }
        Some(bodies)
    }

    fn texts(count: usize) -> Vec<String> {
        (0..count).map(|at| format!("no. {at}, \"[{{\u{e9}")).collect()
    }

    #[test]
    fn a_long_list_goes_in_parts_of_sixteen_and_no_other_byte_is_touched() {
        for path in ["/api/embed", "/v1/embeddings"] {
            let (before, after) = (r#"{ "model" : "m", "x":[1, 2], "Input": "#, r#" ,"truncate":false} "#);
            let body = |inputs: &[String]| format!("{before}{}{after}", Value::from(inputs));
            let all = texts(35);
            let expected: Vec<String> = all.chunks(16).map(body).collect();
            assert_eq!(parts(path, &body(&all)).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn only_lists_of_more_than_sixteen_of_the_two_endpoints_go_in_parts() {
        let body = |inputs: Value| json!({ "model": "m", "input": inputs, "prompt": "p" }).to_string();
        assert_eq!(parts("/api/embed", &body(texts(16).into())), None);
        assert_eq!(parts("/api/embed", &body(texts(17).into())).unwrap().len(), 2);
        for path in ["/api/embeddings", "/v1/responses", "/api/generate"] {
            assert_eq!(parts(path, &body(texts(17).into())), None, "{path}");
        }
        let tokens = json!(vec![[1, 2, 3]; 17]);
        assert_eq!(parts("/v1/embeddings", &body(tokens.clone())).unwrap().len(), 2);
        assert_eq!(parts("/api/embed", &body(tokens)), None, "Ollama's own API knows no tokens");
        assert_eq!(parts("/v1/embeddings", &body(json!(vec![1; 17]))), None, "one input of 17 tokens");
    }

    #[test]
    fn only_the_last_part_says_how_long_the_model_is_kept() {
        let inputs = Value::from(texts(17)).to_string();
        for (before, after) in [("\"keep_alive\":KEEP,", ""), ("", ",\"Keep_ALIVE\":KEEP ")] {
            let body = format!(r#"{{"model":"m",{before}"input":{inputs}{after}}}"#);
            for keep in ["0", "-1", "1.5", "\"0\"", "\"5m\"", "\"-1s\"", "\"1h2.5m3ms\"", "\"7µs\""] {
                let parts = parts("/api/embed", &body.replace("KEEP", keep)).unwrap();
                let (first, last) = (&parts[0], &parts[1]);
                assert!(!first.contains(&format!(":{keep}")) && first.contains(":null"), "{first}");
                assert!(last.contains(&format!(":{keep}")) && !last.contains("null"), "{last}");
            }
            for refused in [
                "\"soon\"",
                "\"5\"",
                "\"\"",
                "\"5 m\"",
                "\".s\"",
                "\"1.2.3s\"",
                "\"s\"",
                "true",
                "null",
                "[]",
            ] {
                let parts = parts("/api/embed", &body.replace("KEEP", refused)).unwrap();
                assert!(parts.iter().all(|part| part.contains(&format!(":{refused}"))), "{refused}");
            }
        }
    }
}
