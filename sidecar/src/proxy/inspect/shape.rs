//! What a body asks of the runner itself: Ollama loads the model anew for whoever asks for something else.
//!
//! Values are told apart by their text: two spellings of one value count as two, which costs patience, never truth.

use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasher, BuildHasherDefault};

use super::scan::MAX_NUMBER;
use super::text;

/// The options that a running model cannot change, as Ollama spells them (it minds their case). The last five are of
/// its older versions; newer ones ignore them.
const FIXED: [&str; 12] = [
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "use_mmap",
    "num_thread",
    "draft_num_predict",
    "low_vram",
    "f16_kv",
    "logits_all",
    "vocab_only",
    "use_mlock",
];

/// What a body says that may concern the runner, as it stands there.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tuning<'a> {
    /// Values of [`FIXED`] in `options`; of equal keys the last, and null is absent.
    options: [Option<&'a str>; FIXED.len()],
    /// The value of the outermost `shift`.
    shift: Option<&'a str>,
}

/// Which of it an endpoint reads. What it does not read, it must not be told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// `/v1/*`: nothing.
    Nothing,
    /// Native embeddings.
    Options,
    /// `/api/chat` and `/api/generate`.
    OptionsAndShift,
}

/// What a runner must have been started with; empty: the model's own values. Equal shapes share a runner.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// The members of `options`, as JSON.
    options: Box<str>,
    /// The value of `shift`, as JSON.
    shift: Box<str>,
}

/// What stands for a value that is too long to be one.
const UNKEPT: &str = "?";

impl Shape {
    /// The members of a request's outermost object that ask for this very shape, each with a comma in front, with
    /// another option beside. None if it was not kept word for word: asking for another one loads the model anew.
    pub(crate) fn members(&self, beside: &str) -> Option<String> {
        let Self { options, shift } = self;
        if options.contains(UNKEPT) || shift.contains(UNKEPT) {
            return None;
        }
        let all = [&**options, beside];
        let all: Vec<&str> = all.into_iter().filter(|part| !part.is_empty()).collect();
        let options =
            if all.is_empty() { String::new() } else { format!(",\"options\":{{{}}}", all.join(",")) };
        let shift = if shift.is_empty() { String::new() } else { format!(",\"shift\":{shift}") };
        Some(options + &shift)
    }

    /// Stands for it; 0 for the model's own values. Two that are told apart by chance alone share one.
    pub(crate) fn digest(&self) -> u64 {
        if *self == Self::default() {
            0
        } else {
            BuildHasherDefault::<DefaultHasher>::default().hash_one(self)
        }
    }

    /// Whether only `/api/chat` and `/api/generate` can ask for it.
    pub(crate) fn shifts(&self) -> bool {
        !self.shift.is_empty()
    }
}

impl<'a> Tuning<'a> {
    /// One member of `options`.
    pub(super) fn option(&mut self, key: &str, raw: &'a str) {
        let key = text::unescape(key);
        let known = FIXED.iter().zip(&mut self.options).find(|(name, _)| **name == key);
        if let Some((_, value)) = known {
            *value = present(raw);
        }
    }

    /// The outermost `shift`.
    pub(super) fn shift(&mut self, raw: &'a str) {
        self.shift = present(raw);
    }

    /// The value of one of [`FIXED`], as it is written.
    pub(crate) fn value(&self, name: &str) -> Option<&'a str> {
        let named = FIXED.iter().zip(&self.options).find(|(known, _)| **known == name);
        named.and_then(|(_, value)| *value)
    }

    /// The same where models are loaded with a context of so many tokens anyway: whoever asks for just that asks for nothing.
    #[must_use]
    pub(crate) fn beyond(mut self, context: Option<u32>) -> Self {
        let is_usual = |raw: &str| raw.parse().ok() == context;
        let named = FIXED.iter().zip(&mut self.options).find(|(name, _)| **name == "num_ctx");
        if let Some((_, value)) = named.filter(|_| context.is_some()) {
            *value = value.filter(|raw| !is_usual(raw));
        }
        self
    }

    /// What of it counts for an endpoint.
    pub(crate) fn shape(&self, reads: Reads) -> Shape {
        let options = if reads == Reads::Nothing { &[] } else { &self.options[..] };
        let shift = self.shift.filter(|_| reads == Reads::OptionsAndShift);
        let named = FIXED.iter().zip(options).filter_map(|(name, value)| Some((*name, (*value)?)));
        let options: Vec<String> = named.map(|(name, value)| format!("\"{name}\":{value}")).collect();
        Shape { options: options.join(",").into(), shift: shift.unwrap_or_default().into() }
    }
}

/// A value that is there. No number and no word is longer than the bound, and Ollama refuses all else.
fn present(raw: &str) -> Option<&str> {
    let kept = if raw.len() > MAX_NUMBER { UNKEPT } else { raw };
    Some(kept).filter(|raw| *raw != "null")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::shape_of;
    use super::*;

    fn native(body: &str) -> Shape {
        shape_of(body, Reads::OptionsAndShift)
    }

    #[test]
    fn only_what_ollama_starts_a_runner_with_tells_shapes_apart() {
        let plain = native(r#"{"model":"a"}"#);
        for same in [
            r#"{"options":{}}"#,
            r#"{"options":null}"#,
            r#"{"options":{"temperature":1,"num_predict":5,"NUM_CTX":7,"x":{"num_ctx":7}}}"#,
            r#"{"options":{"num_ctx":null},"shift":null}"#,
            r#"{"options":{"num_ctx":7,"num_ctx":null}}"#,
            r#"{"num_ctx":7,"messages":[{"options":{"num_ctx":7},"shift":true}]}"#,
            r#"{"options":[{"num_ctx":7}]}"#,
        ] {
            assert_eq!(native(same), plain, "{same}");
        }
        let mut seen = vec![plain];
        for name in FIXED {
            for value in ["1", "true", "1.0"] {
                seen.push(native(&format!(r#"{{"options":{{"{name}":{value}}}}}"#)));
            }
        }
        seen.extend([native(r#"{"shift":true}"#), native(r#"{"shift":false}"#)]);
        for (at, one) in seen.iter().enumerate() {
            assert!(!seen[..at].contains(one), "{one:?}");
        }
    }

    #[test]
    fn neither_order_nor_spelling_of_keys_matters_and_the_last_of_equal_ones_wins() {
        let one = native(r#"{"options":{"num_ctx":7,"num_gpu":1},"shift":true}"#);
        for same in [
            r#"{"shift":true,"OPTIONS":{"num_gpu":1,"seed":1,"num_ctx":7}}"#,
            r#"{ "SHIFT" : true , "options" : { "num\u005fctx" : 7 , "num_gpu" : 1 } }"#,
            r#"{"options":{"num_ctx":9,"num_gpu":1,"num_ctx":7},"shift":true}"#,
        ] {
            assert_eq!(native(same), one, "{same}");
        }
        assert_ne!(native(r#"{"options":{"num_ctx":7,"num_gpu":1,"num_ctx":9},"shift":true}"#), one);
    }

    #[test]
    fn a_context_that_models_have_anyway_is_no_other_shape() {
        let digest = |body: &str, context| {
            let asked = super::super::scan::scan(body.as_bytes()).unwrap();
            asked.tuning.beyond(context).shape(Reads::Options).digest()
        };
        let body = r#"{"options":{"num_ctx":4096}}"#;
        assert_eq!(digest(body, Some(4096)), 0);
        assert_ne!(digest(body, Some(8192)), 0);
        assert_ne!(digest(body, None), 0);
        assert_ne!(digest(r#"{"options":{"num_ctx":4096,"num_gpu":1}}"#, Some(4096)), 0);
    }

    #[test]
    fn a_digest_stands_for_a_shape_and_nothing_stands_for_none() {
        let digest = |body| native(body).digest();
        assert_eq!(digest("{}"), 0);
        let one = r#"{"options":{"num_ctx":7}}"#;
        assert_eq!(digest(one), digest(r#"{"options":{"num_ctx":7,"seed":1}}"#));
        for other in
            ["{}", r#"{"options":{"num_ctx":8}}"#, r#"{"options":{"num_gpu":7}}"#, r#"{"shift":true}"#]
        {
            assert_ne!(digest(one), digest(other), "{other}");
        }
    }

    #[test]
    fn an_endpoint_is_told_apart_only_by_what_it_reads() {
        let body = r#"{"options":{"num_ctx":7},"shift":true}"#;
        assert_eq!(shape_of(body, Reads::Nothing), Shape::default());
        assert_eq!(shape_of(body, Reads::Options), native(r#"{"options":{"num_ctx":7}}"#));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let long = "é".repeat(100_000);
        let kept = native(&format!(r#"{{"options":{{"num_ctx":"{long}"}},"shift":["{long}"]}}"#));
        assert_eq!((&*kept.options, &*kept.shift), (r#""num_ctx":?"#, "?"));
        assert_eq!(kept.members(""), None, "what is not known cannot be asked for");
    }

    #[test]
    fn a_shape_can_be_asked_for_in_the_clients_own_words() {
        assert_eq!(native("{}").members("").as_deref(), Some(""));
        assert_eq!(native("{}").members("\"seed\":1").as_deref(), Some(r#","options":{"seed":1}"#));
        let asked = native(r#"{"options":{"num_gpu": 0,"seed":1,"num_ctx":4.0e1},"shift":false}"#);
        let members = asked.members("\"num_predict\":1").unwrap();
        assert_eq!(members, r#","options":{"num_ctx":4.0e1,"num_gpu":0,"num_predict":1},"shift":false"#);
        assert!(asked.shifts() && !native(r#"{"options":{"num_ctx":"shift"}}"#).shifts());
        assert_eq!(native(&format!("{{\"model\":\"a\"{members}}}")), asked);
    }

    proptest! {
        #[test]
        fn two_bodies_have_one_shape_exactly_if_their_values_are_the_same(
            one in prop::collection::btree_map(prop::sample::select(&FIXED[..]), 0..3_u8, 0..4),
            other in prop::collection::btree_map(prop::sample::select(&FIXED[..]), 0..3_u8, 0..4),
        ) {
            let body = |options| serde_json::json!({ "options": options, "model": "a" }).to_string();
            prop_assert_eq!(native(&body(&one)) == native(&body(&other)), one == other);
        }
    }
}
