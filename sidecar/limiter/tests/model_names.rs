//! Model names as a real Ollama 0.32.15 takes them: what it runs as one model is one name, what it answers 400 is none.
#![cfg(test)]

use corral_limiter::{BadModelName, ModelName};
use proptest::prelude::*;

fn name(raw: &str) -> String {
    ModelName::parse(raw).unwrap().to_string()
}

#[test]
fn every_spelling_that_runs_one_model_is_one_name() {
    let spellings = [
        "tiny",
        "TINY",
        "tiny:latest",
        "Tiny:LATEST",
        "library/tiny",
        "LIBRARY/tiny",
        "registry.ollama.ai/library/tiny",
        "REGISTRY.ollama.ai/library/tiny:latest",
        "https://registry.ollama.ai/library/tiny",
        "http://registry.ollama.ai/library/tiny",
        " tiny ",
        "\ttiny:latest\n",
        "\u{a0}tiny",
        "tiny:local",
        "tiny:LOCAL",
        "tiny: local ",
        "tiny:latest:local",
        "x:///library/tiny",
    ];
    for spelling in spellings {
        assert_eq!(ModelName::parse(spelling), ModelName::parse("tiny"), "{spelling:?}");
    }
}

#[test]
fn other_parts_make_another_name() {
    let names = [
        "tiny",
        "tiny:7b",
        "me/tiny",
        "ollama.com/library/tiny",
        "ollama.com/me/tiny",
        "tiny:cloud",
        "tiny2",
    ];
    for (place, one) in names.iter().enumerate() {
        for other in &names[place + 1..] {
            assert_ne!(ModelName::parse(one), ModelName::parse(other));
        }
    }
    assert_eq!(name("Ollama.com/Library/Tiny"), "ollama.com/library/tiny:latest");
    assert_eq!(name("me/Tiny:Q4_0"), "me/tiny:q4_0");
    assert_eq!(name("localhost:5000/me/tiny"), "localhost:5000/me/tiny:latest");
}

#[test]
fn what_ollama_answers_400_is_no_name() {
    let long = "a".repeat(81);
    let bad = [
        "",
        "  ",
        "tiny:",
        "./tiny",
        "tiny@sha256:00",
        "tiny@sha256-00",
        ":7b",
        "/tiny",
        "me//tiny",
        "//tiny",
        "a.b/tiny",
        "-tiny",
        "tiny:-7b",
        "tiny:7b+x",
        "ti ny",
        "tiny :local",
        "tïny",
        "tiny\0",
        "a/b/c/d",
        "a:b/tiny",
        "tiny:local:local",
        "tiny:cloud:local",
        "tiny:7b-cloud:cloud",
        "tiny:-cloud",
        "..",
        &long,
    ];
    for raw in bad {
        assert!(ModelName::parse(raw).is_err(), "{raw:?}");
    }
    assert_eq!(ModelName::parse(" \n"), Err(BadModelName::Empty));
    assert_eq!(ModelName::parse("tiny:local:cloud"), Err(BadModelName::TwoSources));
}

#[test]
fn cloud_models_are_recognised_however_they_are_spelt() {
    for raw in ["tiny:cloud", "tiny:CLOUD", "tiny:7b-cloud", "tiny:7b-Cloud", "me/tiny:cloud"] {
        assert!(ModelName::parse(raw).unwrap().is_cloud(), "{raw:?}");
    }
    for raw in ["tiny-cloud", "cloud", "tiny:cloudy", "tiny:local", "me-cloud/tiny"] {
        assert!(!ModelName::parse(raw).unwrap().is_cloud(), "{raw:?}");
    }
    assert_eq!(name("tiny:latest:cloud"), name("tiny:cloud"));
    assert_eq!(name("tiny:7b:cloud"), "tiny:7b-cloud");
}

proptest! {
    #[test]
    fn a_normal_form_is_its_own_normal_form(raw in "[ a-zA-Z0-9_./:@-]{0,24}") {
        if let Ok(model) = ModelName::parse(&raw) {
            prop_assert_eq!(ModelName::parse(model.as_str()), Ok(model));
        }
    }

    #[test]
    fn no_text_makes_it_panic(raw in any::<String>()) {
        let _ = ModelName::parse(&raw);
    }

    #[test]
    fn case_and_white_space_around_never_matter(raw in "[a-zA-Z0-9_./:-]{1,16}") {
        let shouted = format!(" {}\n", raw.to_ascii_uppercase());
        prop_assert_eq!(ModelName::parse(&raw), ModelName::parse(&shouted));
    }
}
