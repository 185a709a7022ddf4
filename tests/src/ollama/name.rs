//! Model names as Ollama reads them: many spellings, one model.

/// What a client's spelling names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// A model, in normal form `host/namespace/model:tag`, lower case.
    Model(String),
    /// No name at all.
    Nothing,
    /// A model that would run elsewhere.
    Cloud,
    /// Not a name.
    Invalid,
}

const HOST: &str = "registry.ollama.ai";
const NAMESPACE: &str = "library";
const TAG: &str = "latest";

/// Reads a spelling.
pub(crate) fn read(spelling: &str) -> Named {
    let trimmed = spelling.trim();
    if trimmed.is_empty() {
        return Named::Nothing;
    }
    let bare = trimmed.split_once("://").map_or(trimmed, |(_, rest)| rest).to_ascii_lowercase();
    let bare = bare.strip_suffix(":local").unwrap_or(&bare);
    let (path, tag) = split_tag(bare);
    if tag == "cloud" || tag.ends_with("-cloud") {
        return Named::Cloud;
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    while parts.len() < 3 {
        parts.insert(0, if parts.len() == 2 { HOST } else { NAMESPACE });
    }
    match parts.as_slice() {
        [host, namespace, model]
            if part(host, 350) && part(namespace, 80) && part(model, 80) && part(tag, 80) =>
        {
            Named::Model(format!("{host}/{namespace}/{model}:{tag}"))
        }
        _ => Named::Invalid,
    }
}

/// The name as a list shows it: without the parts that go without saying, but with its tag.
pub(crate) fn short(normal: &str) -> String {
    let bare = normal.strip_prefix(HOST).and_then(|rest| rest.strip_prefix('/')).unwrap_or(normal);
    bare.strip_prefix(NAMESPACE).and_then(|rest| rest.strip_prefix('/')).unwrap_or(bare).to_owned()
}

fn split_tag(name: &str) -> (&str, &str) {
    match name.rfind(':') {
        Some(colon) if !name.get(colon..).unwrap_or_default().contains('/') => {
            (name.get(..colon).unwrap_or_default(), name.get(colon + 1..).unwrap_or_default())
        }
        _ => (name, TAG),
    }
}

fn part(text: &str, max: usize) -> bool {
    let starts_well = text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_');
    let known = |letter: char| letter.is_ascii_alphanumeric() || "_-.:".contains(letter);
    starts_well && text.len() <= max && text.chars().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_model_is_that_model() {
        for spelling in [
            "tiny",
            "TINY",
            "Tiny:LATEST",
            "library/tiny",
            "registry.ollama.ai/library/tiny",
            "https://registry.ollama.ai/library/tiny",
            " tiny ",
            "tiny:local",
            "tiny:latest:local",
        ] {
            assert_eq!(
                read(spelling),
                Named::Model("registry.ollama.ai/library/tiny:latest".into()),
                "{spelling}"
            );
        }
    }

    #[test]
    fn what_is_no_local_model_is_told_apart() {
        assert_eq!(read(""), Named::Nothing);
        assert_eq!(read("tiny:cloud"), Named::Cloud);
        assert_eq!(read("gpt-oss:20b-cloud"), Named::Cloud);
        for spelling in ["tiny@sha256:00", "tiny:", "./tiny", "a/b/c/d/e", "!MISSING!", "../../etc"] {
            assert_eq!(read(spelling), Named::Invalid, "{spelling}");
        }
    }

    #[test]
    fn lists_show_the_short_form() {
        assert_eq!(short("registry.ollama.ai/library/tiny:latest"), "tiny:latest");
        assert_eq!(short("hf.co/me/m:q4"), "hf.co/me/m:q4");
    }
}
