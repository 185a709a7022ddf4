//! What a body asks of the runner itself: Ollama loads the model anew for whoever asks for something else.
//!
//! Values are told apart by their text: two spellings of one value count as two, which costs patience, never truth.

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
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Shape(Box<str>);

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

    /// What of it counts for an endpoint.
    pub(crate) fn shape(&self, reads: Reads) -> Shape {
        let options = if reads == Reads::Nothing { &[] } else { &self.options[..] };
        let shift = self.shift.filter(|_| reads == Reads::OptionsAndShift);
        let named = FIXED.iter().copied().zip(options.iter().copied()).chain([("shift", shift)]);
        let mut shape = String::new();
        for (name, value) in named {
            if let Some(value) = value {
                shape.extend([name, "=", value, ";"]);
            }
        }
        Shape(shape.into())
    }
}

/// A value that is there. No number and no word is longer than the bound, and Ollama refuses all else.
fn present(raw: &str) -> Option<&str> {
    let kept = if raw.len() > MAX_NUMBER { "?" } else { raw };
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
    fn an_endpoint_is_told_apart_only_by_what_it_reads() {
        let body = r#"{"options":{"num_ctx":7},"shift":true}"#;
        assert_eq!(shape_of(body, Reads::Nothing), Shape::default());
        assert_eq!(shape_of(body, Reads::Options), native(r#"{"options":{"num_ctx":7}}"#));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let long = "é".repeat(100_000);
        let kept = native(&format!(r#"{{"options":{{"num_ctx":"{long}"}},"shift":["{long}"]}}"#));
        assert_eq!(&*kept.0, "num_ctx=?;shift=?;");
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
