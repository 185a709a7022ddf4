//! What is wrong with a file, told by document, line and field.

use std::fmt;

use super::locate;
use crate::valid::Problem;

/// How many characters of a long message are shown, of its beginning and of its end.
const BEGINNING: usize = 200;
const END: usize = 120;

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadError {
    /// Which document it is in, from 1; 0 for the file as a whole.
    pub document: usize,
    /// The line of the file, from 1, where it is known.
    pub line: Option<usize>,
    /// The field, as in `spec.limits[0].requests`; empty where it is the document itself.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// Everything that is wrong with a file; at least one thing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ReadErrors(pub Vec<ReadError>);

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.document, self.line) {
            (0, _) => {}
            (document, None) => write!(f, "document {document}: ")?,
            (document, Some(line)) => write!(f, "document {document}, line {line}: ")?,
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for ReadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if place == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl ReadErrors {
    /// Something is wrong with the file as a whole.
    pub(super) fn whole(message: String) -> Self {
        Self(vec![ReadError { document: 0, line: None, path: String::new(), message }])
    }
}

impl ReadError {
    /// A problem that was found after reading; its line is looked up in the file.
    pub fn of_problem(text: &str, document: usize, problem: &Problem) -> Self {
        let line = locate::line(text, document, &problem.path);
        Self { document, line, path: cut(&problem.path), message: cut(&problem.message) }
    }

    /// An error of the parser, at the field it was reading.
    pub(super) fn of_yaml(document: usize, path: &str, error: &serde_yaml::Error) -> Self {
        let path = if path == "." { "" } else { path };
        let line = error.location().map(|location| location.line());
        let (path, message) = in_their_words(path, bare(&error.to_string(), path));
        Self { document, line, path: cut(&path), message: cut(&message) }
    }
}

/// Without its middle where it is long: a value that is shown may be the whole file.
fn cut(text: &str) -> String {
    let length = text.chars().count();
    if length <= BEGINNING + END {
        return text.to_owned();
    }
    let beginning: String = text.chars().take(BEGINNING).collect();
    let end: String = text.chars().skip(length - END).collect();
    format!("{beginning}…{end}")
}

/// The parser's message without the place, which is told apart.
fn bare<'a>(message: &'a str, path: &str) -> &'a str {
    let message = message.rfind(" at line ").and_then(|end| message.get(..end)).unwrap_or(message);
    let mut above = path;
    while !above.is_empty() {
        if let Some(rest) = message.strip_prefix(above).and_then(|rest| rest.strip_prefix(": ")) {
            return rest;
        }
        above = above.rfind(['.', '[']).and_then(|end| above.get(..end)).unwrap_or("");
    }
    message
}

/// In the words of the API server, where it has words for the same.
fn in_their_words(path: &str, message: &str) -> (String, String) {
    if let Some(field) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let dot = if path.is_empty() { "" } else { "." };
        return (format!("{path}{dot}{field}"), "Required value".to_owned());
    }
    if let Some((value, known)) =
        message.strip_prefix("unknown variant `").and_then(|rest| rest.split_once("`, expected "))
    {
        let known: Vec<_> = known.split('`').skip(1).step_by(2).map(|name| format!("{name:?}")).collect();
        let message = format!("Unsupported value: {value:?}: supported values: {}", known.join(", "));
        return (path.to_owned(), message);
    }
    (path.to_owned(), message.to_owned())
}
