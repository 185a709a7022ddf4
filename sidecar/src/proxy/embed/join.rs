//! Makes one answer of the answers to parts of a list: byte for byte what Ollama would have said to the whole.
//!
//! What it says beside the vectors is taken as it comes, in its order: whole numbers are summed, as are those inside of
//! objects, and all else is as the first part has it. So a member that a later Ollama adds is joined as well. Vectors
//! are never read as numbers; of each item of `data` only its `index` is another one.

use bytes::Bytes;

use crate::proxy::inspect::{self, BadJson, Raw};

/// How an API tells of vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `/api/embed`: `embeddings`, a list of vectors.
    Native,
    /// `/v1/embeddings`: `data`, a list of objects that know their places.
    OpenAi,
}

impl Form {
    fn list(self) -> &'static str {
        match self {
            Self::Native => "embeddings",
            Self::OpenAi => "data",
        }
    }
}

/// Why an answer cannot be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPart {
    #[error("it is not text")]
    NotUtf8,
    #[error(transparent)]
    Json(#[from] BadJson),
    #[error("it has no list of vectors")]
    NoList,
    #[error("it has {found} vectors instead of {wanted}")]
    Count { found: usize, wanted: usize },
    #[error("its vectors do not stand in their places")]
    Order,
}

/// What stands in an answer beside its vectors.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// Here the vectors stand.
    List,
    Number(u64),
    Object(Vec<Member>),
    Other(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    /// As it is written, without its quotes.
    key: String,
    value: Value,
}

/// The answer to the whole, as far as it is there.
#[derive(Debug)]
pub(super) struct Joined {
    form: Form,
    members: Vec<Member>,
    /// What follows the object: Ollama ends a line, or does not.
    tail: String,
    /// The vectors that have not gone out yet, with commas between them.
    items: String,
    count: usize,
    /// What stands before the vectors has gone out.
    begun: bool,
}

impl Joined {
    pub(super) fn new(form: Form) -> Self {
        Self { form, members: Vec::new(), tail: String::new(), items: String::new(), count: 0, begun: false }
    }

    /// The bytes of vectors that are held.
    pub(super) fn held(&self) -> usize {
        self.items.len()
    }

    /// Takes in the answer to the next part, which had so many inputs.
    pub(super) fn add(&mut self, answer: &[u8], inputs: usize) -> Result<(), NoPart> {
        let text = std::str::from_utf8(answer).map_err(|_| NoPart::NotUtf8)?;
        let (found, tail) = inspect::members(text)?;
        let list = self.form.list();
        let (_, items) = found.iter().find(|(key, _)| *key == list).ok_or(NoPart::NoList)?;
        let mut added =
            Items { form: self.form, before: self.count, text: String::new(), found: 0, ordered: true };
        inspect::items(items.text, |item| added.add(item))?;
        added.check(inputs)?;
        let mut members = Vec::with_capacity(found.len());
        for (key, raw) in &found {
            let value = if *key == list { Value::List } else { value_of(*raw)? };
            members.push(Member { key: (*key).to_owned(), value });
        }
        merge(&mut self.members, members);
        if self.count > 0 && !added.text.is_empty() {
            self.items.push(',');
        }
        self.items.push_str(&added.text);
        self.count += added.found;
        tail.clone_into(&mut self.tail);
        Ok(())
    }

    /// Tokens of the prompts, as Ollama counted them; none where it did not.
    pub(super) fn tokens(&self) -> Option<u64> {
        match self.form {
            Form::Native => number(&self.members, "prompt_eval_count"),
            Form::OpenAi => match value(&self.members, "usage")? {
                Value::Object(usage) => number(usage, "prompt_tokens"),
                _ => None,
            },
        }
    }

    /// The answer as it would be without vectors: all that it counts is in it.
    pub(super) fn counts(&self) -> String {
        let (front, back) = self.around();
        front + &back
    }

    /// What can go out before all parts are there.
    pub(super) fn front(&mut self) -> Bytes {
        let mut out = if self.begun { String::new() } else { self.around().0 };
        self.begun = true;
        out.push_str(&std::mem::take(&mut self.items));
        out.into()
    }

    /// All that has not gone out, up to the end.
    pub(super) fn rest(mut self) -> Bytes {
        let (_, back) = self.around();
        let front = self.front();
        let mut out = match front.try_into_mut() {
            Ok(front) => front,
            Err(front) => bytes::BytesMut::from(&*front),
        };
        out.extend_from_slice(back.as_bytes());
        out.freeze()
    }

    /// What stands before the vectors, and what behind.
    fn around(&self) -> (String, String) {
        let mut written = String::from("{");
        let mut front = String::new();
        for (at, Member { key, value }) in self.members.iter().enumerate() {
            written.push_str(if at > 0 { ",\"" } else { "\"" });
            written.push_str(key);
            written.push_str("\":");
            if *value == Value::List {
                written.push('[');
                front = std::mem::take(&mut written);
                written.push(']');
            } else {
                write(&mut written, value);
            }
        }
        written.push('}');
        written.push_str(&self.tail);
        (front, written)
    }
}

/// The vectors of one part.
struct Items {
    form: Form,
    /// How many stand before them.
    before: usize,
    text: String,
    found: usize,
    ordered: bool,
}

impl Items {
    fn add(&mut self, item: &str) {
        if self.found > 0 {
            self.text.push(',');
        }
        match self.form {
            Form::Native => self.text.push_str(item),
            Form::OpenAi => self.ordered &= self.renumber(item).is_some(),
        }
        self.found += 1;
    }

    /// The same item at its place in the whole.
    fn renumber(&mut self, item: &str) -> Option<()> {
        let (members, _) = inspect::members(item).ok()?;
        let (_, index) = members.into_iter().find(|(key, _)| *key == "index")?;
        (index.text.parse() == Ok(self.found)).then_some(())?;
        self.text.push_str(item.get(..index.at)?);
        self.text.push_str(&(self.before + self.found).to_string());
        self.text.push_str(item.get(index.at + index.text.len()..)?);
        Some(())
    }

    fn check(&self, wanted: usize) -> Result<(), NoPart> {
        if self.found != wanted {
            return Err(NoPart::Count { found: self.found, wanted });
        }
        if self.ordered { Ok(()) } else { Err(NoPart::Order) }
    }
}

fn value_of(raw: Raw<'_>) -> Result<Value, BadJson> {
    if let Ok(number) = raw.text.parse() {
        return Ok(Value::Number(number));
    }
    if !raw.text.starts_with('{') {
        return Ok(Value::Other(raw.text.to_owned()));
    }
    let (found, _) = inspect::members(raw.text)?;
    let read = |(key, raw): (&str, Raw<'_>)| Ok(Member { key: key.to_owned(), value: value_of(raw)? });
    Ok(Value::Object(found.into_iter().map(read).collect::<Result<_, BadJson>>()?))
}

/// Sums what is there, and puts what is new behind what it followed. Zeros are left out by Ollama: any part may be the
/// first that tells of something.
fn merge(whole: &mut Vec<Member>, part: Vec<Member>) {
    let mut behind = 0;
    for Member { key, value } in part {
        let Some(at) = whole.iter().position(|member| member.key == key) else {
            whole.insert(behind.min(whole.len()), Member { key, value });
            behind += 1;
            continue;
        };
        behind = at + 1;
        match (whole.get_mut(at).map(|member| &mut member.value), value) {
            (Some(Value::Number(sum)), Value::Number(more)) => *sum = sum.saturating_add(more),
            (Some(Value::Object(known)), Value::Object(more)) => merge(known, more),
            _ => {}
        }
    }
}

fn value<'a>(members: &'a [Member], key: &str) -> Option<&'a Value> {
    members.iter().find(|member| member.key == key).map(|member| &member.value)
}

fn number(members: &[Member], key: &str) -> Option<u64> {
    match value(members, key)? {
        Value::Number(number) => Some(*number),
        _ => None,
    }
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::List => {}
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::Other(text) => out.push_str(text),
        Value::Object(members) => {
            out.push('{');
            for (at, Member { key, value }) in members.iter().enumerate() {
                out.push_str(if at > 0 { ",\"" } else { "\"" });
                out.push_str(key);
                out.push_str("\":");
                write(out, value);
            }
            out.push('}');
        }
    }
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
