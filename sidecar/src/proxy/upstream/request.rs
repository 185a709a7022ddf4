//! The request as Ollama gets it: a literal path, a local host, and none of the client's headers but two.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use super::Pieces;
use crate::proxy::inspect::Held;
use crate::proxy::route::{Action, Route};
use crate::proxy::tokens::Edit;

/// What Ollama is asked, as often as it has to be: whole, or a part of it each time.
#[derive(Debug)]
pub(crate) struct Order {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// The client's body, and its room; none where there is no body.
    body: Option<Held>,
}

impl Order {
    /// The client's headers stay here: credentials (which Ollama would hand to its cloud), `Origin` (judged already),
    /// forwarded addresses, everything about the connection. `Host` is one that Ollama takes for local.
    pub(crate) fn new(route: &Route<'_>, method: Method, headers: &HeaderMap, body: Option<Held>) -> Self {
        let mut out = HeaderMap::with_capacity(3);
        out.insert(HOST, HeaderValue::from_static("localhost"));
        if let Some(accept) = headers.get(ACCEPT) {
            out.insert(ACCEPT, accept.clone());
        }
        if matches!(route.endpoint.action, Action::Infer | Action::Show) {
            out.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Self { method, uri: target(route), headers: out, body }
    }

    /// The client's body.
    pub(crate) fn body(&self) -> Bytes {
        self.body.as_ref().map_or_else(Bytes::new, |held| held.bytes().clone())
    }

    /// One request, with changes of the body, which are in the order of their places and do not overlap.
    pub(crate) fn request(&self, edits: &[Edit]) -> Request<Pieces> {
        let mut request = Request::new(Pieces::edited(&self.body(), edits));
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        request.headers_mut().clone_from(&self.headers);
        request
    }
}

/// From the table, not from the client: what was looked up is what is asked for.
fn target(route: &Route<'_>) -> Uri {
    match route.model {
        None => Uri::from_static(route.endpoint.path),
        // Parsed from a URI, and found to be literal and a model's name.
        Some(model) => format!("{}{model}", route.endpoint.path).parse().unwrap_or_default(),
    }
}
