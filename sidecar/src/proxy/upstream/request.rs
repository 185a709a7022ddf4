//! The request as Ollama gets it: a literal path, a local host, and none of the client's headers but two.

use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request};

use super::Pieces;
use crate::proxy::route::{Action, Route};

/// Builds it. The client's headers stay here: credentials (which Ollama would hand to its cloud), `Origin` (judged
/// already), forwarded addresses, everything about the connection. `Host` is one that Ollama takes for local.
pub(crate) fn build(route: &Route<'_>, method: Method, headers: &HeaderMap, body: Pieces) -> Request<Pieces> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = target(route);
    let out = request.headers_mut();
    out.insert(HOST, HeaderValue::from_static("localhost"));
    if let Some(accept) = headers.get(ACCEPT) {
        out.insert(ACCEPT, accept.clone());
    }
    if matches!(route.endpoint.action, Action::Infer | Action::Show) {
        out.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    request
}

/// From the table, not from the client: what was looked up is what is asked for.
fn target(route: &Route<'_>) -> http::Uri {
    match route.model {
        None => http::Uri::from_static(route.endpoint.path),
        // Parsed from a URI, and found to be literal and a model's name.
        Some(model) => format!("{}{model}", route.endpoint.path).parse().unwrap_or_default(),
    }
}
