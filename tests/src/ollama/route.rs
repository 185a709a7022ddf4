//! Paths as Ollama routes them: decoded first, so that `/api/%67enerate` arrives, and cleaned by a redirect.

use http::Method;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// To a handler.
    To(Endpoint),
    /// 307 to the cleaned path.
    Redirect(String),
    /// 404: no such path.
    Unknown,
    /// 405: the path exists, the method does not.
    WrongMethod,
}

/// Every handler that the script plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST /api/generate`
    Generate,
    /// `POST /api/chat`
    Chat,
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/responses`
    Responses,
    /// `POST /api/embed`
    Embed,
    /// `POST /api/embeddings`
    Embeddings,
    /// `POST /v1/embeddings`
    OpenAiEmbeddings,
    /// `GET /`
    Root,
    /// `GET /api/version`
    Version,
    /// `GET /api/tags`
    Tags,
    /// `GET /api/ps`
    Ps,
    /// `POST /api/show`
    Show,
    /// `GET /v1/models`
    Models,
    /// `GET /v1/models/{name}`
    Model,
    /// Pull, push, create, copy, delete, blobs, account and cloud: what a client must never reach.
    Management,
}

impl Endpoint {
    /// Whether it runs a model.
    pub fn infers(self) -> bool {
        matches!(
            self,
            Self::Generate
                | Self::Chat
                | Self::ChatCompletions
                | Self::Completions
                | Self::Messages
                | Self::Responses
                | Self::Embed
                | Self::Embeddings
                | Self::OpenAiEmbeddings
        )
    }
}

const TABLE: &[(&str, &str, Endpoint)] = &[
    ("POST", "/api/generate", Endpoint::Generate),
    ("POST", "/api/chat", Endpoint::Chat),
    ("POST", "/v1/chat/completions", Endpoint::ChatCompletions),
    ("POST", "/v1/completions", Endpoint::Completions),
    ("POST", "/v1/messages", Endpoint::Messages),
    ("POST", "/v1/responses", Endpoint::Responses),
    ("POST", "/api/embed", Endpoint::Embed),
    ("POST", "/api/embeddings", Endpoint::Embeddings),
    ("POST", "/v1/embeddings", Endpoint::OpenAiEmbeddings),
    ("GET HEAD", "/", Endpoint::Root),
    ("GET HEAD", "/api/version", Endpoint::Version),
    ("GET HEAD", "/api/tags", Endpoint::Tags),
    ("GET", "/api/ps", Endpoint::Ps),
    ("POST", "/api/show", Endpoint::Show),
    ("GET", "/v1/models", Endpoint::Models),
    ("POST", "/api/pull", Endpoint::Management),
    ("POST", "/api/push", Endpoint::Management),
    ("POST", "/api/create", Endpoint::Management),
    ("POST", "/api/copy", Endpoint::Management),
    ("DELETE", "/api/delete", Endpoint::Management),
    ("GET", "/api/status", Endpoint::Management),
    ("POST", "/api/me", Endpoint::Management),
    ("POST", "/api/signout", Endpoint::Management),
    ("POST", "/api/experimental/web_search", Endpoint::Management),
    ("POST", "/api/experimental/web_fetch", Endpoint::Management),
    ("POST", "/v1/audio/transcriptions", Endpoint::Management),
];

/// Finds the handler of a raw path.
pub(crate) fn find(method: &Method, raw_path: &str) -> Route {
    let Some(path) = decode(raw_path) else { return Route::Unknown };
    let clean = cleaned(&path);
    if clean != path {
        return if clean == "/" || lookup(method, &clean) == Route::Unknown {
            Route::Unknown
        } else {
            Route::Redirect(clean)
        };
    }
    lookup(method, &path)
}

fn lookup(method: &Method, path: &str) -> Route {
    if let Some((methods, _, endpoint)) = TABLE.iter().find(|(_, known, _)| *known == path) {
        let served = methods.split(' ').any(|one| one == method.as_str());
        return if served { Route::To(*endpoint) } else { Route::WrongMethod };
    }
    let below =
        |parent: &str| path.strip_prefix(parent).is_some_and(|rest| !rest.is_empty() && !rest.contains('/'));
    match method.as_str() {
        "GET" if below("/v1/models/") => Route::To(Endpoint::Model),
        "POST" | "HEAD" if below("/api/blobs/") => Route::To(Endpoint::Management),
        "DELETE" if below("/api/user/keys/") => Route::To(Endpoint::Management),
        _ if below("/v1/models/") || below("/api/blobs/") => Route::WrongMethod,
        _ => Route::Unknown,
    }
}

/// Percent-decoded; none where an escape is broken.
fn decode(raw: &str) -> Option<String> {
    let mut bytes = raw.bytes();
    let mut decoded = Vec::with_capacity(raw.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|hex| char::from(hex).to_digit(16));
        let code = digit()? * 16 + digit()?;
        decoded.push(u8::try_from(code).ok()?);
    }
    Some(String::from_utf8_lossy(&decoded).into_owned())
}

/// Without `//`, `.`, `..` and a closing slash.
fn cleaned(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_paths_arrive_and_untidy_ones_are_redirected() {
        let at = |path: &str| find(&Method::POST, path);
        for path in ["/api/generate", "/api/%67enerate", "/api%2fgenerate"] {
            assert_eq!(at(path), Route::To(Endpoint::Generate), "{path}");
        }
        for path in
            ["//api/generate", "/api//generate", "/api/generate/", "/api/./generate", "/x/../api/generate"]
        {
            assert_eq!(at(path), Route::Redirect("/api/generate".into()), "{path}");
        }
        for path in ["/API/generate", "/api/generate;a", "/v1/nope", "/debug/pprof/heap", "/api/%zz"] {
            assert_eq!(at(path), Route::Unknown, "{path}");
        }
    }
}
