//! Which requests exist: an exact list of literal paths and methods, and nothing else.
//!
//! Nothing is normalised. Ollama decodes and cleans a path before it looks it up, so every spelling but the literal
//! one is refused here, and what is forwarded is the literal from this table, never the client's own spelling.

use corral_wire::EndpointClass;
use http::{Method, Uri};

use super::inspect::Reads;

/// Whose API a path belongs to: it decides the shape of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// `/api/*`, `/` and Corral's own.
    Ollama,
    /// `/v1/*`.
    OpenAi,
    /// `/v1/messages`.
    Anthropic,
}

/// What an endpoint does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Goes to Ollama with its JSON body, after its limits and, for inference, for a slot.
    Infer,
    /// `/api/show`: a JSON body, no slot; the model may be called `name`.
    Show,
    /// Goes to Ollama without a body.
    Look,
    /// Answered here: what limits apply to the caller.
    Limits,
}

/// How a complete stream of an endpoint ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It never streams.
    Whole,
    /// NDJSON: a line with `"done":true`.
    DoneLine,
    /// SSE: `data: [DONE]`.
    DoneData,
    /// SSE of `/v1/messages`: `event: message_stop`.
    MessageStop,
    /// SSE of `/v1/responses`: `event: response.completed` or one of its kin.
    ResponseCompleted,
}

/// One endpoint of the allow-list.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// The literal path; for one model, its prefix.
    pub(crate) path: &'static str,
    pub(crate) class: EndpointClass,
    pub(crate) family: Family,
    pub(crate) action: Action,
    /// Whether the answer streams when the body does not say.
    pub(crate) streams_by_default: bool,
    pub(crate) ending: Ending,
    methods: &'static [Method],
}

/// A request that exists.
#[derive(Debug, PartialEq)]
pub(crate) struct Route<'a> {
    pub(crate) endpoint: &'static Endpoint,
    /// The model named in the path, as the client spelt it: it may be no model's name.
    pub(crate) model: Option<&'a str>,
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// Why a request does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RouteFault {
    /// An unusual spelling: what Ollama would make of it is not what it looks like.
    #[error("the path must be spelt literally: no escapes, no empty or dotted segments, no query, no host")]
    Spelling,
    /// It exists in Ollama, and is closed to clients.
    #[error("this endpoint manages models or accounts and is closed to clients of this pool")]
    Closed,
    /// It does not exist.
    #[error("no such endpoint")]
    Unknown,
    /// It exists for other methods.
    #[error("this endpoint does not take this method")]
    Method {
        /// Which it takes, as an `Allow` header says it.
        allow: &'static str,
    },
}

const GET: &[Method] = &[Method::GET];
const GET_HEAD: &[Method] = &[Method::GET, Method::HEAD];
const POST: &[Method] = &[Method::POST];

const fn infer(
    path: &'static str,
    class: EndpointClass,
    family: Family,
    streams_by_default: bool,
    ending: Ending,
) -> Endpoint {
    Endpoint { path, class, family, action: Action::Infer, streams_by_default, ending, methods: POST }
}

const fn look(path: &'static str, family: Family, methods: &'static [Method]) -> Endpoint {
    let (class, action) = (EndpointClass::Metadata, Action::Look);
    Endpoint { path, class, family, action, streams_by_default: false, ending: Ending::Whole, methods }
}

use EndpointClass::{Chat, Embed, Generate};
use Family::{Anthropic, Ollama, OpenAi};

/// One model of the `OpenAI` list; the path goes on with the model's name.
static ONE_MODEL: Endpoint = look("/v1/models/", OpenAi, GET);

static ENDPOINTS: &[Endpoint] = &[
    infer("/api/chat", Chat, Ollama, true, Ending::DoneLine),
    infer("/api/generate", Generate, Ollama, true, Ending::DoneLine),
    infer("/api/embed", Embed, Ollama, false, Ending::Whole),
    infer("/api/embeddings", Embed, Ollama, false, Ending::Whole),
    infer("/v1/chat/completions", Chat, OpenAi, false, Ending::DoneData),
    infer("/v1/completions", Generate, OpenAi, false, Ending::DoneData),
    infer("/v1/embeddings", Embed, OpenAi, false, Ending::Whole),
    infer("/v1/responses", Chat, OpenAi, false, Ending::ResponseCompleted),
    infer("/v1/messages", Chat, Anthropic, false, Ending::MessageStop),
    look("/", Ollama, GET_HEAD),
    look("/api/tags", Ollama, GET_HEAD),
    look("/api/version", Ollama, GET_HEAD),
    look("/api/ps", Ollama, GET),
    look("/v1/models", OpenAi, GET),
    Endpoint { action: Action::Show, methods: POST, ..look("/api/show", Ollama, POST) },
    Endpoint { action: Action::Limits, ..look("/corral/v1/limits", Ollama, GET) },
];

/// Paths that Ollama has and clients do not: models and accounts are managed by the pool, and nothing of the pod's
/// own reaches the outside. One that ends in `/` closes all below it.
const CLOSED: &[&str] = &[
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/api/delete",
    "/api/blobs/",
    "/api/me",
    "/api/signout",
    "/api/user/",
    "/api/status",
    "/api/experimental/",
    "/v1/audio/",
    "/v1/images/",
];

/// The one query that clients send: Anthropic's SDKs mark their newer calls with it. Ollama knows no query, and gets
/// none.
const KNOWN_QUERY: (&str, &str) = ("/v1/messages", "beta=true");

/// The family in whose shape a path's errors are told, whether the path exists or not.
pub(crate) fn family_of(path: &str) -> Family {
    if path == "/v1/messages" || path.starts_with("/v1/messages/") {
        Anthropic
    } else if path.starts_with("/v1/") {
        OpenAi
    } else {
        Ollama
    }
}

/// Finds the endpoint of a request target.
pub(crate) fn find<'a>(method: &Method, uri: &'a Uri) -> Result<Route<'a>, RouteFault> {
    let path = uri.path();
    let strange_query = uri.query().is_some_and(|query| KNOWN_QUERY != (path, query));
    if uri.scheme().is_some() || uri.authority().is_some() || strange_query || !is_literal(path) {
        return Err(RouteFault::Spelling);
    }
    if let Some(endpoint) = ENDPOINTS.iter().find(|endpoint| endpoint.path == path) {
        return endpoint.take(method, None);
    }
    if let Some(model) = path.strip_prefix(ONE_MODEL.path).filter(|rest| !rest.is_empty()) {
        return ONE_MODEL.take(method, Some(model));
    }
    let closed = |entry: &&str| path == *entry || (entry.ends_with('/') && path.starts_with(*entry));
    Err(if CLOSED.iter().any(closed) { RouteFault::Closed } else { RouteFault::Unknown })
}

/// Every endpoint, as limits see it.
pub(crate) fn all() -> impl Iterator<Item = (EndpointClass, &'static str)> {
    ENDPOINTS.iter().chain([&ONE_MODEL]).map(|endpoint| (endpoint.class, endpoint.path))
}

/// Whether there is an endpoint at a request target, for whatever method.
pub(crate) fn exists(uri: &Uri) -> Result<(), RouteFault> {
    match find(&Method::OPTIONS, uri) {
        Ok(_) | Err(RouteFault::Method { .. }) => Ok(()),
        Err(fault) => Err(fault),
    }
}

impl Endpoint {
    fn take<'a>(&'static self, method: &Method, model: Option<&'a str>) -> Result<Route<'a>, RouteFault> {
        if self.methods.contains(method) {
            return Ok(Route { endpoint: self, model });
        }
        let allow = match (self.methods.len(), self.methods.contains(&Method::POST)) {
            (_, true) => "POST",
            (1, _) => "GET",
            _ => "GET, HEAD",
        };
        Err(RouteFault::Method { allow })
    }

    /// Whether an activator holds it until there is a pod, and so asks for one. Health checks of load balancers ask for the
    /// rest: that wakes no pool and keeps none awake.
    pub(crate) fn is_held(&self) -> bool {
        self.path != "/" && self.action != Action::Limits
    }

    /// Whether it is held and no work, such as a list of models.
    pub(crate) fn is_look(&self) -> bool {
        self.is_held() && self.action != Action::Infer
    }

    /// What of a body says which runner is needed. Ollama's compatibility APIs have no say in it.
    pub(crate) fn reads(&self) -> Reads {
        match (self.family, self.class) {
            (Ollama, Embed) => Reads::Options,
            (Ollama, Chat | Generate) => Reads::OptionsAndShift,
            _ => Reads::Nothing,
        }
    }
}

/// Whether every way to read the path reads the same.
fn is_literal(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'%' | b';' | b'\\' | b'#' | b'?');
    path.starts_with('/')
        && path.bytes().all(plain)
        && !path.contains("//")
        && !path.split('/').any(|segment| segment == "." || segment == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_find(method: &Method, target: &str) -> Result<&'static str, RouteFault> {
        find(method, &target.parse().unwrap()).map(|route| route.endpoint.path)
    }

    #[test]
    fn every_listed_path_is_found_by_its_method_and_by_no_other() {
        for endpoint in ENDPOINTS {
            for method in
                [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS]
            {
                let found = try_find(&method, endpoint.path);
                if endpoint.methods.contains(&method) {
                    assert_eq!(found, Ok(endpoint.path));
                } else {
                    assert!(matches!(found, Err(RouteFault::Method { .. })), "{method} {}", endpoint.path);
                }
            }
        }
    }

    #[test]
    fn a_health_check_wakes_nobody_and_a_list_is_no_work() {
        let all = || ENDPOINTS.iter().chain([&ONE_MODEL]);
        let paths = |is: fn(&Endpoint) -> bool| -> Vec<&str> {
            all().filter(|endpoint| is(endpoint)).map(|endpoint| endpoint.path).collect()
        };
        assert_eq!(paths(|endpoint| !endpoint.is_held()), ["/", "/corral/v1/limits"]);
        assert_eq!(
            paths(Endpoint::is_look),
            ["/api/tags", "/api/version", "/api/ps", "/v1/models", "/api/show", "/v1/models/"]
        );
    }

    #[test]
    fn no_other_spelling_of_a_path_is_served() {
        for target in [
            "//api/generate",
            "/api//generate",
            "/api/./generate",
            "/x/../api/generate",
            "/api/%67enerate",
            "/api%2fgenerate",
            "/api/%2e%2e/api/generate",
            "/api/generate;a=b",
            "/x/..;a=b/api/generate",
            "/api/generate%00",
            "/api/generate%20",
            "/api/generate?x=1",
            "/api/generate?",
            "http://evil/api/generate",
            "*",
        ] {
            assert_eq!(try_find(&Method::POST, target), Err(RouteFault::Spelling), "{target}");
        }
        for target in
            ["/api/generate/", "/API/Generate", "/debug/pprof/heap", "/api", "/v1/messages/count_tokens"]
        {
            assert_eq!(try_find(&Method::POST, target), Err(RouteFault::Unknown), "{target}");
        }
        assert!(try_find(&Method::CONNECT, "host:80").is_err());
    }

    #[test]
    fn what_manages_models_or_accounts_is_closed_whatever_the_method() {
        for path in
            ["/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete", "/api/blobs/sha256:00"]
        {
            for method in [Method::POST, Method::DELETE, Method::HEAD, Method::GET] {
                assert_eq!(try_find(&method, path), Err(RouteFault::Closed), "{method} {path}");
            }
        }
        for path in ["/api/me", "/api/signout", "/api/user/keys/x", "/api/experimental/web_search"] {
            assert_eq!(try_find(&Method::POST, path), Err(RouteFault::Closed), "{path}");
        }
    }

    #[test]
    fn a_model_in_the_path_is_as_the_client_spelt_it() {
        let uri: Uri = "/v1/models/Tiny:latest".parse().unwrap();
        assert_eq!(find(&Method::GET, &uri).unwrap().model, Some("Tiny:latest"));
        assert_eq!(try_find(&Method::POST, "/v1/models/tiny"), Err(RouteFault::Method { allow: "GET" }));
        assert_eq!(try_find(&Method::GET, "/v1/models/"), Err(RouteFault::Unknown));
    }

    #[test]
    fn an_endpoint_exists_for_whatever_method_and_a_closed_one_does_not() {
        let exists = |target: &str| exists(&target.parse().unwrap());
        for target in ["/", "/api/chat", "/api/tags", "/v1/models/tiny", "/v1/messages?beta=true"] {
            assert_eq!(exists(target), Ok(()), "{target}");
        }
        assert_eq!(exists("/api/pull"), Err(RouteFault::Closed));
        assert_eq!(exists("/api/nope"), Err(RouteFault::Unknown));
        assert_eq!(exists("/api//chat"), Err(RouteFault::Spelling));
    }

    #[test]
    fn errors_are_told_in_the_shape_of_the_family() {
        assert_eq!(family_of("/api/nope"), Ollama);
        assert_eq!(family_of("/v1/nope"), OpenAi);
        assert_eq!(family_of("/v1/messages/count_tokens"), Anthropic);
        assert_eq!(family_of("/v1/messagesx"), OpenAi);
    }
}
