//! What a request is about, read from its path alone: no discovery, any resource exists.

use http::Uri;

/// The object, or the collection, that a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version in the path.
    pub version: String,
    /// The namespace, if the path has one.
    pub namespace: Option<String>,
    /// The resource, in plural.
    pub plural: String,
    /// The object's name; none for a collection.
    pub name: Option<String>,
    /// `status`, `scale`, …
    pub subresource: Option<String>,
    /// The decoded query.
    pub query: Vec<(String, String)>,
}

impl Target {
    /// Reads a path such as `/apis/apps/v1/namespaces/a/deployments/b/status?x=y`.
    pub fn parse(uri: &Uri) -> Option<Self> {
        let mut parts = uri.path().split('/').filter(|part| !part.is_empty()).map(str::to_owned);
        let group = match parts.next()?.as_str() {
            "api" => String::new(),
            "apis" => parts.next()?,
            _ => return None,
        };
        let version = parts.next()?;
        let mut rest: Vec<String> = parts.collect();
        let mut namespace = None;
        // `namespaces/a` is the namespace itself; anything longer lies within it.
        if rest.len() > 2 && rest.first().is_some_and(|part| part == "namespaces") {
            namespace = rest.drain(..2).next_back();
        }
        let mut rest = rest.into_iter();
        let (plural, name, subresource) = (rest.next()?, rest.next(), rest.next());
        rest.next().is_none().then(|| Self {
            group,
            version,
            namespace,
            plural,
            name,
            subresource,
            query: query(uri),
        })
    }

    /// The value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a query parameter is `true`.
    pub fn asks(&self, name: &str) -> bool {
        self.parameter(name) == Some("true")
    }
}

fn query(uri: &Uri) -> Vec<(String, String)> {
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}

/// Undoes form encoding: `+` and `%41`.
fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
                let text = String::from_utf8_lossy(&digits).into_owned();
                u8::from_str_radix(&text, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
