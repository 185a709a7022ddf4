//! Lets a browser show a page the answers that it asked for, where the page may use this API from elsewhere.
//!
//! The rules are Ollama's: who is allowed is named, with `Vary: Origin`, in every answer, refusals too; a preflight is
//! answered for every path that exists, whatever the state of Ollama, and costs no limit and no slot. Beyond what Ollama
//! says, pages may read the headers that tell how a client stands and when to come back.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

use super::cross_site::Page;

/// Every header of ours that a page may want to read.
const EXPOSED: &str = "Retry-After, Retry-After-Ms, RateLimit, RateLimit-Policy, X-Request-Id, X-Should-Retry, \
                       X-Corral-Limit, X-Corral-Retry, X-Corral-Shed-Reason, X-Corral-Queue-Position, \
                       X-Corral-Estimated-Wait, X-Corral-Queue-Time, X-RateLimit-Limit-Requests, \
                       X-RateLimit-Limit-Tokens, X-RateLimit-Remaining-Requests, X-RateLimit-Remaining-Tokens, X-RateLimit-Reset-Requests, \
                       X-RateLimit-Reset-Tokens";

/// What is served here; Ollama names those methods too that only manage models.
const METHODS: &str = "GET, HEAD, POST";

/// What Ollama allows, then what clients of the Anthropic API send from a browser, and what is read here.
const HEADERS: &str = "Authorization, Content-Type, User-Agent, Accept, X-Requested-With, OpenAI-Beta, \
                       X-Stainless-Arch, X-Stainless-Async, X-Stainless-Custom-Poll-Interval, \
                       X-Stainless-Helper-Method, X-Stainless-Lang, X-Stainless-OS, X-Stainless-Package-Version, \
                       X-Stainless-Poll-Helper, X-Stainless-Retry-Count, X-Stainless-Runtime, \
                       X-Stainless-Runtime-Version, X-Stainless-Timeout, X-Stainless-Read-Timeout, X-Request-Timeout-Ms, X-Api-Key, \
                       Anthropic-Version, Anthropic-Beta, Anthropic-Dangerous-Direct-Browser-Access, X-Request-Id";

/// For how many seconds a browser need not ask again: 12 h, as Ollama says.
const MAX_AGE: &str = "43200";

/// Whether a request asks, for a page that is let in from elsewhere, what the page may send.
pub(crate) fn is_preflight(page: &Page, method: &Method, headers: &HeaderMap) -> bool {
    matches!(page, Page::Allowed(_))
        && *method == Method::OPTIONS
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight, but for what every answer carries.
pub(crate) fn preflight() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    headers
}

/// What every answer carries that is for a page.
pub(crate) fn insert(out: &mut HeaderMap, page: &Page) {
    if *page != Page::None {
        out.append(VARY, HeaderValue::from_static("Origin"));
    }
    if let Page::Allowed(origin) = page {
        out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        out.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> Page {
        Page::Allowed(HeaderValue::from_static("http://localhost:3000"))
    }

    #[test]
    fn only_pages_that_are_let_in_from_elsewhere_are_named() {
        let told = |page: &Page| {
            let mut out = HeaderMap::new();
            insert(&mut out, page);
            out
        };
        let out = told(&allowed());
        assert_eq!(out[ACCESS_CONTROL_ALLOW_ORIGIN], "http://localhost:3000");
        assert_eq!(out[VARY], "Origin");
        assert!(out[ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap().contains("Retry-After"));
        for page in [Page::SameSite, Page::Foreign] {
            let out = told(&page);
            assert!(out.len() == 1 && out[VARY] == "Origin", "{page:?} {out:?}");
        }
        assert!(told(&Page::None).is_empty());
    }

    #[test]
    fn what_an_answer_varies_by_already_stays() {
        let mut out = HeaderMap::new();
        out.insert(VARY, HeaderValue::from_static("Accept"));
        insert(&mut out, &allowed());
        assert_eq!(out.get_all(VARY).iter().collect::<Vec<_>>(), ["Accept", "Origin"]);
    }

    #[test]
    fn a_preflight_names_its_origin_and_the_method_it_asks_for() {
        let mut asks = HeaderMap::new();
        assert!(!is_preflight(&allowed(), &Method::OPTIONS, &asks));
        asks.insert(ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
        assert!(is_preflight(&allowed(), &Method::OPTIONS, &asks));
        assert!(!is_preflight(&allowed(), &Method::POST, &asks));
        for page in [Page::None, Page::SameSite, Page::Foreign] {
            assert!(!is_preflight(&page, &Method::OPTIONS, &asks), "{page:?}");
        }
    }
}
