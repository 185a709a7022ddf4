//! Model patterns: what they cover, what is none, and that none is slow.

use std::time::{Duration, Instant};

use corral_limiter::{BadModelName, BadPattern, ModelName, Pattern};
use proptest::prelude::*;

fn covers(pattern: &str, model: &str) -> bool {
    Pattern::parse(pattern).unwrap().matches(&ModelName::parse(model).unwrap())
}

/// Every way to cut the text, tried by a table.
fn naive(pattern: &str, text: &str) -> bool {
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for symbol in pattern.bytes() {
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            next[at] = match symbol {
                b'*' => reached[..=at].contains(&true),
                _ => at > 0 && reached[at - 1] && text.as_bytes()[at - 1] == symbol,
            };
        }
        reached = next;
    }
    reached[text.len()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_pattern_covers_what_a_naive_matcher_covers(
        pattern in "[ab*]{0,4}\\*[ab*.-]{0,5}(:[ab*]{1,4})?", model in "([ab]{1,3}/){0,2}[ab.-]{0,3}[ab]{1,5}(:[ab]{1,5})?",
    ) {
        let (Ok(read), Ok(model)) = (Pattern::parse(&pattern), ModelName::parse(&model)) else {
            return Ok(());
        };
        let name = model.as_str();
        let untagged = name.rsplit_once(':').unwrap().0;
        let expected = naive(&pattern, name) || !pattern.contains(':') && naive(&pattern, untagged);
        prop_assert_eq!(read.matches(&model), expected, "{} over {}", pattern, name);
    }

    #[test]
    fn without_a_star_every_spelling_of_a_model_covers_it_and_no_other(name in "[ab]{1,3}(:[ab]{1,2})?", other in "[ab]{1,3}(:[ab]{1,2})?") {
        let upper = name.to_ascii_uppercase();
        for spelling in [name.clone(), format!("library/{upper}"), format!("https://registry.ollama.ai/library/{name}")] {
            prop_assert!(covers(&spelling, &name));
            prop_assert_eq!(covers(&spelling, &other), ModelName::parse(&name).unwrap() == ModelName::parse(&other).unwrap());
        }
    }

    #[test]
    fn whatever_is_read_as_a_pattern_reads_again_as_it_prints(pattern in "[a-zA-Z*/:._ -]{0,30}|.{0,30}") {
        if let Ok(read) = Pattern::parse(&pattern) {
            let printed = read.to_string();
            prop_assert_eq!(Pattern::parse(&printed).map(|again| again.to_string()), Ok(printed));
        }
    }
}

#[test]
fn a_star_is_any_run_of_characters_and_no_tag_is_any_tag() {
    for (pattern, model, expected) in [
        ("llama3*", "llama3.2:3b", true),
        ("llama3*", "LLAMA3:70b", true),
        ("LLama3*", "llama3", true),
        ("llama3*", "me/llama3", false),
        ("*llama3", "me/llama3:8b", true),
        ("*:70b", "llama3:70b", true),
        ("*:70b", "example.com/me/llama3:70b", true),
        ("*:70b", "llama3:70b-q4", false),
        ("*:70b*", "llama3:70b-q4", true),
        ("*:latest", "tiny", true),
        ("tiny", "tiny", true),
        ("tiny", "tiny:7b", false),
        ("me/*", "me/tiny:7b", true),
        ("me/*", "tiny", false),
        ("*", "example.com/me/tiny:7b", true),
        ("example.com:5000/*tiny", "example.com:5000/me/tiny:7b", true),
        ("example.com:5000/*", "example.com/me/tiny", false),
        ("a*a", "a", false),
        ("a*a:latest", "aa", true),
        ("qwen*-cloud", "qwen3:7b-cloud", true),
    ] {
        assert_eq!(covers(pattern, model), expected, "{pattern} over {model}");
    }
}

#[test]
fn what_normal_forms_leave_out_may_be_written() {
    for (pattern, model, expected) in [
        ("library/ll*", "llama3:8b", true),
        ("library/*", "me/llama3", false),
        ("registry.ollama.ai/library/ll*", "llama3", true),
        ("https://registry.ollama.ai/library/*", "example.com/library/llama3", false),
        ("registry.ollama.ai/me/*", "me/llama3", true),
        ("registry.ollama.ai/*", "me/llama3", true),
        ("registry.ollama.ai/*", "example.com/me/llama3", false),
        (" library/ll* ", "llama3", true),
    ] {
        assert_eq!(covers(pattern, model), expected, "{pattern} over {model}");
    }
}

#[test]
fn what_no_model_can_match_is_no_pattern() {
    for pattern in ["*:", "/*", ":*", "me//*", "me/:*", "*/"] {
        assert_eq!(Pattern::parse(pattern), Err(BadPattern::NoName), "{pattern}");
    }
    assert_eq!(Pattern::parse("llama?*"), Err(BadPattern::BadCharacter('?')));
    assert_eq!(Pattern::parse("größe*"), Err(BadPattern::BadCharacter('ö')));
    assert_eq!(Pattern::parse(&"*a".repeat(257)), Err(BadPattern::TooLong));
    assert_eq!(Pattern::parse(" "), Err(BadPattern::BadName(BadModelName::Empty)));
    assert!(Pattern::parse("a b").is_err());
}

#[test]
fn a_pattern_prints_as_it_is_matched_and_says_which_single_model_it_is() {
    assert_eq!(Pattern::parse("Library/LLama*").unwrap().to_string(), "llama*");
    let single = Pattern::parse(" Tiny ").unwrap();
    assert_eq!(single.model(), Some(&ModelName::parse("tiny:latest").unwrap()));
    assert_eq!(Pattern::parse("tiny*").unwrap().model(), None);
}

#[test]
fn the_worst_patterns_take_microseconds_over_the_longest_names() {
    let host = "a".repeat(350);
    let model = ModelName::parse(&format!("{host}/{0}/{0}:{0}", "a".repeat(80))).unwrap();
    for pattern in
        [format!("{}b", "*a".repeat(255)), format!("*{}b*", "a".repeat(255)), "*a*a*a*a*b".to_owned()]
    {
        let pattern = Pattern::parse(&pattern).unwrap();
        let begun = Instant::now();
        (0..1000).for_each(|_| assert!(!pattern.matches(&model)));
        assert!(Instant::now().duration_since(begun) < Duration::from_secs(2), "1000 of {pattern}");
    }
}
