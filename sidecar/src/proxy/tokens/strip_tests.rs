use proptest::prelude::*;

use super::*;

macro_rules! recorded {
    ($file:literal) => {
        include_str!(concat!("../../../fixtures/ollama-0.32.15/", $file))
    };
}

const CHAT: (&str, &str) = (recorded!("chat_completions_usage.sse"), recorded!("chat_completions.sse"));
const TEXT: (&str, &str) = (recorded!("completions_usage.sse"), recorded!("completions.sse"));

fn passed(pieces: &[&[u8]]) -> String {
    let mut strip = Strip::default();
    let mut out = Vec::new();
    for piece in pieces {
        out.extend_from_slice(&strip.pass(Bytes::copy_from_slice(piece)));
    }
    out.extend_from_slice(&strip.rest());
    String::from_utf8(out).unwrap()
}

/// Two answers differ in the numbers of their ids and times.
fn shape(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[test]
fn the_client_sees_what_it_would_have_seen_without_asking() {
    for (asked, unasked) in [CHAT, TEXT] {
        let passed = passed(&[asked.as_bytes()]);
        assert_eq!(shape(&passed), shape(unasked));
        // Byte for byte: with the ids and the time of the one answer in the other.
        let id = |text: &str| text.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let time =
            |text: &str| text.split("\"created\":").nth(1).unwrap().split(',').next().unwrap().to_owned();
        let unasked = unasked.replace(&id(unasked), &id(asked)).replace(&time(unasked), &time(asked));
        assert_eq!(passed, unasked);
    }
}

#[test]
fn a_stream_without_usage_goes_on_untouched_and_uncopied() {
    for (_, unasked) in [CHAT, TEXT] {
        let frame = Bytes::from_static(unasked.as_bytes());
        let passed = Strip::default().pass(frame.clone());
        assert_eq!((passed.as_ptr(), passed.len()), (frame.as_ptr(), frame.len()));
    }
}

#[test]
fn words_about_usage_stay() {
    for text in [
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\":{}\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"usage\":{\"a\":1}}}]}\n\n",
        "data: {\"choices\":[],\"usage\":null}\n\n",
        ": \"usage\":{}\n",
        "data: [DONE]\n\n",
        "data: \"usage\" {\n\n",
        "\"usage\":{",
    ] {
        assert_eq!(passed(&[text.as_bytes()]), text);
    }
}

#[test]
fn usage_is_taken_out_wherever_it_stands() {
    for (text, left) in [
        (r#"{"usage":{"a":"}"},"choices":[1]}"#, r#"{"choices":[1]}"#),
        (r#"{"choices":[1] , "usage" : {"a":[1,2]} , "x":"\"y"}"#, r#"{"choices":[1] , "x":"\"y"}"#),
        (r#"{"choices":[{"a":{}}],"usage":{}}"#, r#"{"choices":[{"a":{}}]}"#),
    ] {
        assert_eq!(passed(&[format!("data: {text}\n\n").as_bytes()]), format!("data: {left}\n\n"));
    }
}

#[test]
fn a_stream_that_breaks_off_loses_nothing() {
    let (asked, _) = CHAT;
    let cut = &asked[..100];
    assert_eq!(passed(&[cut.as_bytes()]), cut);
}

#[test]
fn what_is_kept_is_bounded_and_passes() {
    let mut strip = Strip::default();
    let mut out = 0;
    let piece = Bytes::from(vec![b'x'; 1024 * 1024]);
    for _ in 0..10 {
        out += strip.pass(piece.clone()).len();
        assert!(strip.kept.len() <= LONGEST_LINE);
    }
    assert_eq!(out + strip.rest().len(), 10 * piece.len());
    assert_eq!(strip.pass(Bytes::from_static(b"\n")).len(), 1);
    assert!(strip.is_at_line_start());
}

proptest! {
    #[test]
    fn any_split_into_frames_gives_the_same_bytes(
        chat in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let (text, _) = if chat { CHAT } else { TEXT };
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        places.extend([0, text.len()]);
        places.sort_unstable();
        let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
        prop_assert_eq!(passed(&pieces), passed(&[text.as_bytes()]));
    }
}
