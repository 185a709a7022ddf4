//! Manifests from a file: what `kubectl apply` takes, read without an API server.
//!
//! A file holds one or more YAML documents. Whatever is wrong with any of them is told at once, by document, line and
//! field. A field that nobody knows is refused: a misspelt limit that is quietly ignored would be no limit.

mod error;
mod locate;
mod secret;
mod unknown;
mod weight;

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed};

pub use self::error::{ReadError, ReadErrors};
use self::secret::SecretDocument;
use crate::{
    API_VERSION,
    api_keys::Entries,
    policy::{Labels, RateLimitPolicySpec},
    pool::OllamaPoolSpec,
    valid::{Problem, check_policy, check_pool, check_zones},
};

/// The most bytes of a file.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
/// The most documents of a file.
pub const MAX_DOCUMENTS: usize = 1000;
/// About how many errors of a file are told: whoever reads the first ones reads no more.
const MAX_ERRORS: usize = 20;
/// The namespace of whatever names none.
pub const DEFAULT_NAMESPACE: &str = "standalone";

/// What is read of an object's metadata; the rest is Kubernetes' own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The object's name.
    pub name: String,
    /// Its namespace; [`DEFAULT_NAMESPACE`] where the file has none.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Its labels.
    #[serde(default)]
    pub labels: Labels,
}

impl Metadata {
    /// Whether both name one object, given that they are of one kind.
    pub fn names_the_same(&self, other: &Self) -> bool {
        (&self.namespace, &self.name) == (&other.namespace, &other.name)
    }
}

/// One document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Which document of the file it is, from 1.
    pub document: usize,
    /// What it is called.
    pub metadata: Metadata,
    /// What it asks for.
    pub spec: Spec,
}

/// What a document asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// An `OllamaPool`.
    Pool(Box<OllamaPoolSpec>),
    /// A `RateLimitPolicy`.
    Policy(Box<RateLimitPolicySpec>),
    /// A `v1` Secret: API keys.
    Secret(Secret),
}

/// The content of a Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Entries);

/// What it holds is for nobody's log.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} entries)", self.0.len())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<S> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: S,
    /// What a cluster says of the object; a file that was exported from one has it.
    #[serde(default, rename = "status")]
    _status: Option<serde_json::Value>,
}

fn default_namespace() -> String {
    DEFAULT_NAMESPACE.to_owned()
}

/// Reads a file, or says what is wrong with it. An empty file is refused: one cut short while it is being written must
/// not lift every limit.
pub fn read(text: &str) -> Result<Vec<Manifest>, ReadErrors> {
    if text.len() > MAX_FILE_BYTES {
        return Err(ReadErrors::whole(format!("the file is larger than {MAX_FILE_BYTES} bytes")));
    }
    weigh(text)?;
    let (mut manifests, mut errors) = (Vec::new(), Vec::new());
    for (place, (head, whole)) in documents(text).zip(documents(text)).enumerate() {
        if errors.len() >= MAX_ERRORS {
            break;
        }
        let head = Option::<Head>::deserialize(head);
        let head = head.map_err(|error| ReadErrors(vec![ReadError::of_yaml(place + 1, "", &error)]))?;
        let Some(head) = head else { continue };
        match one(Source { text, document: place + 1, whole }, &head) {
            Ok(manifest) => manifests.push(manifest),
            Err(found) => errors.extend(found),
        }
    }
    errors.extend(repeated(&manifests));
    match (errors.is_empty(), manifests.is_empty()) {
        (false, _) => Err(ReadErrors(errors)),
        (true, true) => Err(ReadErrors::whole("the file holds no document".to_owned())),
        (true, false) => Ok(manifests),
    }
}

fn documents(text: &str) -> serde_yaml::Deserializer<'_> {
    serde_yaml::Deserializer::from_str(text)
}

/// Refuses what is too much, before anything is made of it.
fn weigh(text: &str) -> Result<(), ReadErrors> {
    if let Some(line) = weight::bristling(text) {
        let message = format!(
            "line {line}: a document may hold at most {} brackets, and fewer if it is long",
            weight::MAX_BRACKETS
        );
        return Err(ReadErrors::whole(message));
    }
    let mut left = weight::MAX_WEIGHT;
    for (place, document) in documents(text).enumerate() {
        if place >= MAX_DOCUMENTS {
            return Err(ReadErrors::whole(format!("the file has more than {MAX_DOCUMENTS} documents")));
        }
        let weighed = weight::Weigh(&mut left).deserialize(document);
        weighed.map_err(|error| ReadErrors(vec![ReadError::of_yaml(place + 1, "", &error)]))?;
    }
    Ok(())
}

/// A document, and where it stands.
struct Source<'a> {
    text: &'a str,
    document: usize,
    whole: serde_yaml::Deserializer<'a>,
}

fn one(source: Source<'_>, head: &Head) -> Result<Manifest, Vec<ReadError>> {
    let (text, document) = (source.text, source.document);
    let fault = |path: &str, message: String| {
        vec![ReadError::of_problem(text, document, &Problem { path: path.to_owned(), message })]
    };
    if (head.api_version.as_deref(), head.kind.as_deref()) == (Some("v1"), Some("Secret")) {
        return secret(source);
    }
    if head.api_version.as_deref() != Some(API_VERSION) {
        return Err(fault("apiVersion", format!("is not {API_VERSION}")));
    }
    match head.kind.as_deref() {
        Some("RateLimitPolicy") => {
            let (metadata, spec) = typed::<RateLimitPolicySpec>(source)?;
            refuse_if(text, document, check_policy(&spec))?;
            Ok(Manifest { document, metadata, spec: Spec::Policy(Box::new(spec)) })
        }
        Some("OllamaPool") => {
            let (metadata, spec) = typed::<OllamaPoolSpec>(source)?;
            refuse_if(text, document, check_pool(&metadata.name, &spec))?;
            refuse_if(text, document, check_zones(&spec))?;
            Ok(Manifest { document, metadata, spec: Spec::Pool(Box::new(spec)) })
        }
        _ => Err(fault("kind", "is neither RateLimitPolicy nor OllamaPool".to_owned())),
    }
}

fn secret(source: Source<'_>) -> Result<Manifest, Vec<ReadError>> {
    let (text, document) = (source.text, source.document);
    let read: SecretDocument = whole(source)?;
    match read.entries() {
        Ok(entries) => {
            Ok(Manifest { document, metadata: read.metadata, spec: Spec::Secret(Secret(entries)) })
        }
        Err(problems) => Err(told(text, document, problems)),
    }
}

fn refuse_if(text: &str, document: usize, problems: Vec<Problem>) -> Result<(), Vec<ReadError>> {
    if problems.is_empty() { Ok(()) } else { Err(told(text, document, problems)) }
}

fn told(text: &str, document: usize, problems: Vec<Problem>) -> Vec<ReadError> {
    let few = problems.into_iter().take(MAX_ERRORS);
    few.map(|problem| ReadError::of_problem(text, document, &problem)).collect()
}

/// Reads a document as an object with this spec, leaving nothing unread.
fn typed<S: DeserializeOwned>(source: Source<'_>) -> Result<(Metadata, S), Vec<ReadError>> {
    let read: Document<S> = whole(source)?;
    Ok((read.metadata, read.spec))
}

/// Reads a document, leaving nothing unread.
fn whole<D: DeserializeOwned>(source: Source<'_>) -> Result<D, Vec<ReadError>> {
    let Source { text, document, whole } = source;
    let (mut track, mut unread) = (serde_path_to_error::Track::new(), Vec::new());
    let tracked = serde_path_to_error::Deserializer::new(whole, &mut track);
    let read: Result<D, _> = serde_ignored::deserialize(tracked, |path| unread.extend(unknown::path(&path)));
    let read = read.map_err(|error| vec![ReadError::of_yaml(document, &track.path().to_string(), &error)])?;
    let problem = |path| Problem { path, message: "unknown field".to_owned() };
    refuse_if(text, document, unread.into_iter().map(problem).collect())?;
    Ok(read)
}

/// The same name twice is one object to a cluster, and the last would win there in silence.
fn repeated(manifests: &[Manifest]) -> Vec<ReadError> {
    let same = |a: &Manifest, b: &Manifest| {
        std::mem::discriminant(&a.spec) == std::mem::discriminant(&b.spec)
            && a.metadata.names_the_same(&b.metadata)
    };
    let twin = |(place, manifest): (usize, &Manifest)| {
        let earlier = manifests.iter().take(place).find(|earlier| same(earlier, manifest))?;
        Some(ReadError {
            document: manifest.document,
            line: None,
            path: "metadata.name".to_owned(),
            message: format!("document {} is called the same", earlier.document),
        })
    };
    manifests.iter().enumerate().filter_map(twin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "\
apiVersion: corral.dev/v1alpha1
kind: RateLimitPolicy
metadata: { name: fair-use }
spec:
  targetRefs: [{ kind: OllamaPool, name: chat }]
  limits:
  - name: per-client
    per: [Client]
    requests: 60/m
";

    fn errors(text: &str) -> Vec<String> {
        read(text).unwrap_err().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn documents_are_read_in_order_and_empty_ones_skipped() {
        let text = format!(
            "---\n---\n{POLICY}---\napiVersion: corral.dev/v1alpha1\nkind: OllamaPool\nmetadata: {{ name: chat, namespace: llm, uid: x }}\nspec: {{}}\nstatus: {{ a: 1 }}\n"
        );
        let read = read(&text).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].document, read[0].metadata.namespace.as_str()), (2, DEFAULT_NAMESPACE));
        assert_eq!((read[1].document, read[1].metadata.namespace.as_str()), (3, "llm"));
        assert!(matches!(read[1].spec, Spec::Pool(_)));
    }

    #[test]
    fn a_misspelt_field_is_told_with_its_path_and_line() {
        let text = format!("{POLICY}    concurency: 4\n  mood: Shadow\n");
        assert_eq!(
            errors(&text),
            [
                "document 1, line 10: spec.limits[0].concurency: unknown field",
                "document 1, line 11: spec.mood: unknown field",
            ]
        );
    }

    #[test]
    fn broken_rules_are_told_with_path_and_line() {
        let text = format!("{POLICY}    burst: {{ requests: 0 }}\n").replace("60/m", "60/x");
        let told = errors(&text);
        assert!(
            told[0].starts_with("document 1, line 9: spec.limits[0].requests: this is no rate"),
            "{told:?}"
        );
        assert_eq!(
            told[1],
            "document 1, line 10: spec.limits[0].burst.requests: should be greater than or equal to 1"
        );
    }

    #[test]
    fn errors_of_shape_name_the_field_in_the_words_of_the_api_server() {
        assert_eq!(
            errors(&POLICY.replace("spec:", "spec:\n  mode: Audit")),
            [
                "document 1, line 5: spec.mode: Unsupported value: \"Audit\": supported values: \"Enforce\", \"Shadow\""
            ]
        );
        assert_eq!(
            errors(&POLICY.replace("    per: [Client]\n", "")),
            ["document 1, line 7: spec.limits[0].per: Required value"]
        );
        let told = errors(&POLICY.replace("requests: 60/m", "concurrency: many"));
        assert!(
            told[0].starts_with("document 1, line 9: spec.limits[0].concurrency: invalid type"),
            "{told:?}"
        );
    }

    #[test]
    fn every_document_tells_its_own_errors() {
        let text = format!("{}---\n{}", POLICY.replace("60/m", "0/m"), POLICY.replace("Client", "Who"));
        let read = read(&text).unwrap_err();
        assert_eq!(read.0.iter().map(|error| error.document).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn other_kinds_and_versions_are_refused() {
        assert_eq!(
            errors(&POLICY.replace("v1alpha1", "v9")),
            ["document 1, line 1: apiVersion: is not corral.dev/v1alpha1"]
        );
        assert_eq!(
            errors(&POLICY.replace("RateLimitPolicy", "Pod")),
            ["document 1, line 2: kind: is neither RateLimitPolicy nor OllamaPool"]
        );
    }

    #[test]
    fn what_is_empty_broken_or_repeated_is_refused() {
        assert_eq!(errors(""), ["the file holds no document"]);
        assert_eq!(errors("# nothing\n---\n"), ["the file holds no document"]);
        assert!(errors("a: [").concat().contains("document 1"));
        assert!(errors("- a\n").concat().contains("invalid type"));
        assert_eq!(
            errors(&format!("{POLICY}---\n{POLICY}")),
            ["document 2: metadata.name: document 1 is called the same"]
        );
        assert!(errors(&"#".repeat(MAX_FILE_BYTES + 1)).concat().contains("larger"));
        assert!(errors(&"--- {}\n".repeat(MAX_DOCUMENTS + 1)).concat().contains("more than"));
    }

    #[test]
    fn what_nests_or_repeats_too_much_is_refused() {
        let laughs = |key: &str| {
            let line = |n: usize| format!("  a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(","));
            let lines: String = (1..9).map(line).collect();
            format!("{POLICY}{key}:\n  a0: &a0 [x, x, x]\n{lines}")
        };
        for bomb in [
            laughs("status"),
            laughs("unknown"),
            POLICY.replace("60/m", &"[".repeat(500_000)),
            POLICY.replace("60/m", &"{a: ".repeat(200_000)),
            POLICY.replace("60/m", &format!("\n      {}a", "- ".repeat(100_000))),
            format!("{POLICY}    models: [&a {}, {}]\n", "x".repeat(100_000), vec!["*a"; 50_000].join(",")),
        ] {
            let told = errors(&bomb).concat();
            let known = ["repeat", "limit exceeded", "brackets", "not allowed"];
            assert!(known.iter().any(|words| told.contains(words)), "{told}");
        }
    }

    #[test]
    fn an_alias_stands_for_what_it_names() {
        let text = POLICY.replace("[Client]", "&per [Client]");
        let twice = format!("{text}  - name: more\n    per: *per\n    concurrency: 4\n");
        assert_eq!(read(&twice).unwrap().len(), 1);
    }

    #[test]
    fn a_thousand_documents_are_read_in_one_pass() {
        let one = |n: usize| format!("---\n{}", POLICY.replace("fair-use", &format!("p{n}")));
        let text: String = (0..MAX_DOCUMENTS).map(one).collect();
        assert_eq!(read(&text).unwrap().len(), MAX_DOCUMENTS);
    }

    #[test]
    fn no_error_shows_a_value_at_length_and_no_file_all_of_its_errors() {
        let long = "y".repeat(100_000);
        for text in [
            POLICY.replace("requests: 60/m", &format!("concurrency: {long}")),
            POLICY.replace("[Client]", &format!("[{long}]")),
            POLICY.replace("60/m", &long),
            format!("{POLICY}    ? {long}\n    : 1\n"),
        ] {
            assert!(errors(&text).concat().len() < 2000, "{:?}", errors(&text));
        }
        let fields: Vec<_> = (0..1000).map(|n| format!("    z{n}: 1\n")).collect();
        assert_eq!(errors(&format!("{POLICY}{}", fields.concat())).len(), MAX_ERRORS);
        let documents = format!("---\n{}", POLICY.replace("60/m", "0/m")).repeat(100);
        assert!(errors(&documents).len() < 2 * MAX_ERRORS);
    }

    #[test]
    fn a_field_that_stands_twice_is_refused() {
        let told = errors(&format!("{POLICY}    requests: 600/m\n"));
        assert!(told.concat().contains("duplicate"), "{told:?}");
    }
}
