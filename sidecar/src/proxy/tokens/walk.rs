//! Walks over the JSON of an answer as its bytes go by, in whatever pieces, and says what stands where.
//!
//! Nothing is kept but where it is: a line may be as long as it likes. What it walks over was written by Ollama, so it
//! checks nothing; where it does not understand, it waits for the next line.

/// The deepest place that is told of.
const LEVELS: usize = 6;
/// The deepest place that is followed; one bit each.
const DEEPEST: usize = 126;
/// The longest name that is known.
const LONGEST_NAME: usize = 24;
/// How each event of a stream begins that has data.
const DATA: &[u8] = b"data:";

/// The names of members that mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// A place in a list.
    Item,
    /// Any other name.
    Other,
    Choices,
    Completion,
    Cached,
    CachedPrompt,
    Content,
    Delta,
    Error,
    Evaluated,
    EvaluatedIn,
    Input,
    InputDetails,
    LoadedIn,
    Message,
    Output,
    PartialJson,
    Prompt,
    PromptDetails,
    PromptEvaluated,
    PromptEvaluatedIn,
    Reasoning,
    Response,
    Text,
    Thinking,
    ToolCalls,
    TookInAll,
    Usage,
}

impl Name {
    fn of(key: &[u8]) -> Self {
        match key {
            b"choices" => Self::Choices,
            b"completion_tokens" => Self::Completion,
            b"cached_tokens" => Self::Cached,
            b"prompt_eval_cached_count" => Self::CachedPrompt,
            b"content" => Self::Content,
            b"delta" => Self::Delta,
            b"error" => Self::Error,
            b"eval_count" => Self::Evaluated,
            b"eval_duration" => Self::EvaluatedIn,
            b"input_tokens" => Self::Input,
            b"input_tokens_details" => Self::InputDetails,
            b"load_duration" => Self::LoadedIn,
            b"message" => Self::Message,
            b"output_tokens" => Self::Output,
            b"partial_json" => Self::PartialJson,
            b"prompt_tokens" => Self::Prompt,
            b"prompt_tokens_details" => Self::PromptDetails,
            b"prompt_eval_count" => Self::PromptEvaluated,
            b"prompt_eval_duration" => Self::PromptEvaluatedIn,
            b"reasoning" | b"reasoning_content" => Self::Reasoning,
            b"response" => Self::Response,
            b"text" => Self::Text,
            b"thinking" => Self::Thinking,
            b"tool_calls" => Self::ToolCalls,
            b"total_duration" => Self::TookInAll,
            b"usage" => Self::Usage,
            _ => Self::Other,
        }
    }
}

/// Hears what stands where.
pub(super) trait Listener {
    /// A string that is not empty, or a list or object.
    fn something(&mut self, path: &[Name]);
    /// A whole number that is not negative, and a member of an object.
    fn number(&mut self, path: &[Name], number: u64);
    /// A value of the outermost kind is over: a line of NDJSON, an event, or the whole answer.
    fn over(&mut self);
}

/// How an answer is cut into JSON values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// It is one.
    Whole,
    /// Each line is one.
    Lines,
    /// Each line that begins with `data:` is one, behind that.
    Events,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the beginning of an event's line, so many bytes of [`DATA`] in.
    Prefix(usize),
    /// In a line that does not matter.
    Skip,
    /// Between values.
    Between,
    /// In a key.
    Key,
    /// In a string that is a value; whether it was told of.
    Words { told: bool },
    /// Behind a backslash in a key or a value.
    Escape { key: bool },
    /// In a number; none once it is not a whole one.
    Number(Option<u64>),
}

/// Walks over one answer.
#[derive(Debug)]
pub(super) struct Walker {
    framing: Framing,
    state: State,
    depth: usize,
    /// Which of the open containers are objects; the innermost is the lowest bit.
    objects: u128,
    /// Where it is in each open container.
    path: [Name; LEVELS],
    /// The next string is a key.
    wants_key: bool,
    key: [u8; LONGEST_NAME],
    key_length: usize,
}

impl Walker {
    pub(super) fn new(framing: Framing) -> Self {
        Self {
            framing,
            state: line_start(framing),
            depth: 0,
            objects: 0,
            path: [Name::Other; LEVELS],
            wants_key: false,
            key: [0; LONGEST_NAME],
            key_length: 0,
        }
    }

    /// Walks over bytes that go by.
    pub(super) fn walk(&mut self, mut bytes: &[u8], listener: &mut impl Listener) {
        while let Some((byte, rest)) = bytes.split_first() {
            if *byte == b'\n' && self.framing != Framing::Whole {
                self.end_line(listener);
                bytes = rest;
                continue;
            }
            bytes = match self.state {
                State::Prefix(matched) => {
                    self.state = prefix(matched, *byte);
                    rest
                }
                State::Skip => from_first(memchr::memchr(b'\n', bytes), bytes),
                State::Between if self.depth > 0 && self.objects & 1 == 0 && !is_mark(*byte) => {
                    from_first(bytes.iter().position(|byte| is_mark(*byte)), bytes)
                }
                State::Between => {
                    self.between(*byte, listener);
                    rest
                }
                State::Key => {
                    self.key_byte(*byte);
                    rest
                }
                State::Words { told } => self.words(told, bytes, listener),
                State::Escape { key } => {
                    self.state = if key { State::Key } else { State::Words { told: true } };
                    rest
                }
                State::Number(number) => self.number(number, bytes, listener),
            };
        }
    }

    /// A line break is never inside a value: whatever is open was broken off.
    fn end_line(&mut self, listener: &mut impl Listener) {
        if let State::Number(Some(number)) = self.state {
            listener.number(self.place(), number);
        }
        if self.depth > 0 {
            listener.over();
        }
        (self.depth, self.objects, self.wants_key) = (0, 0, false);
        self.state = line_start(self.framing);
    }

    fn between(&mut self, byte: u8, listener: &mut impl Listener) {
        match byte {
            b'"' if self.wants_key => {
                self.key_length = 0;
                self.state = State::Key;
            }
            b'"' => self.state = State::Words { told: false },
            b'{' => self.open(true, listener),
            b'[' => self.open(false, listener),
            b'}' | b']' => self.close(listener),
            b':' => self.wants_key = false,
            b',' => self.wants_key = self.objects & 1 == 1,
            b'0'..=b'9' => self.state = State::Number(Some(u64::from(byte - b'0'))),
            b'-' => self.state = State::Number(None),
            _ => {}
        }
    }

    fn open(&mut self, object: bool, listener: &mut impl Listener) {
        if self.depth > 0 {
            listener.something(self.place());
        }
        if self.depth == DEEPEST {
            self.state = State::Skip;
            return;
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
        self.wants_key = object;
        self.set_name(if object { Name::Other } else { Name::Item });
    }

    fn close(&mut self, listener: &mut impl Listener) {
        if self.depth == 0 {
            return;
        }
        self.depth -= 1;
        self.objects >>= 1;
        self.wants_key = false;
        if self.depth == 0 {
            listener.over();
        }
    }

    fn set_name(&mut self, name: Name) {
        if let Some(place) = self.path.get_mut(self.depth.saturating_sub(1)) {
            *place = name;
        }
    }

    /// Where it is; nowhere if that is too deep to be told.
    fn place(&self) -> &[Name] {
        self.path.get(..self.depth).unwrap_or_default()
    }

    fn key_byte(&mut self, byte: u8) {
        match byte {
            b'"' => {
                let name = Name::of(self.key.get(..self.key_length).unwrap_or_default());
                self.set_name(name);
                self.state = State::Between;
            }
            // No name that is known has one.
            b'\\' => {
                self.key_length = LONGEST_NAME + 1;
                self.state = State::Escape { key: true };
            }
            _ => {
                if let Some(place) = self.key.get_mut(self.key_length) {
                    *place = byte;
                }
                self.key_length = (self.key_length + 1).min(LONGEST_NAME + 1);
            }
        }
    }

    /// The rest of a string, as far as it is here.
    fn words<'a>(&mut self, told: bool, bytes: &'a [u8], listener: &mut impl Listener) -> &'a [u8] {
        let end = match self.framing {
            Framing::Whole => memchr::memchr2(b'"', b'\\', bytes),
            _ => memchr::memchr3(b'"', b'\\', b'\n', bytes),
        };
        let last = end.and_then(|end| bytes.get(end));
        if !told && (end != Some(0) || last == Some(&b'\\')) {
            listener.something(self.place());
        }
        let told = told || end != Some(0);
        self.state = match last {
            Some(b'"') => State::Between,
            Some(b'\\') => State::Escape { key: false },
            _ => State::Words { told },
        };
        let rest = from_first(end, bytes);
        // A line break is left for the end of the line.
        if last == Some(&b'\n') { rest } else { rest.get(1..).unwrap_or_default() }
    }

    fn number<'a>(&mut self, number: Option<u64>, bytes: &'a [u8], listener: &mut impl Listener) -> &'a [u8] {
        let byte = bytes.first().copied().unwrap_or_default();
        match byte {
            b'0'..=b'9' => {
                let digit = u64::from(byte - b'0');
                let number = number.map(|number| number.saturating_mul(10).saturating_add(digit));
                self.state = State::Number(number);
                bytes.get(1..).unwrap_or_default()
            }
            b'.' | b'e' | b'E' | b'+' | b'-' => {
                self.state = State::Number(None);
                bytes.get(1..).unwrap_or_default()
            }
            _ => {
                if let Some(number) = number {
                    listener.number(self.place(), number);
                }
                self.state = State::Between;
                bytes
            }
        }
    }
}

fn prefix(matched: usize, byte: u8) -> State {
    match DATA.get(matched) {
        Some(expected) if *expected != byte => State::Skip,
        Some(_) if matched + 1 == DATA.len() => State::Between,
        _ => State::Prefix(matched + 1),
    }
}

/// Whether it means something in a list. Vectors are lists of numbers, megabytes of them, none of which does.
fn is_mark(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'}' | b'[' | b']' | b'\n')
}

fn line_start(framing: Framing) -> State {
    if framing == Framing::Events { State::Prefix(0) } else { State::Between }
}

/// What begins at a place; nothing if there is none.
fn from_first(place: Option<usize>, bytes: &[u8]) -> &[u8] {
    place.and_then(|place| bytes.get(place..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default, PartialEq, Debug)]
    struct Heard(Vec<String>);

    impl Listener for Heard {
        fn something(&mut self, path: &[Name]) {
            self.0.push(format!("{path:?}"));
        }

        fn number(&mut self, path: &[Name], number: u64) {
            self.0.push(format!("{path:?}={number}"));
        }

        fn over(&mut self) {
            self.0.push("over".to_owned());
        }
    }

    fn heard(framing: Framing, pieces: &[&[u8]]) -> Vec<String> {
        let mut walker = Walker::new(framing);
        let mut heard = Heard::default();
        for piece in pieces {
            walker.walk(piece, &mut heard);
        }
        heard.0
    }

    #[test]
    fn what_stands_where_is_told() {
        let text = br#"{"a":"","response":"x\"y","usage":{"prompt_tokens":12,"b":-3,"c":1.5},"choices":[{"text":"\\"}],"eval_count":0}"#;
        assert_eq!(
            heard(Framing::Whole, &[text]),
            [
                "[Response]",
                "[Usage]",
                "[Usage, Prompt]=12",
                "[Choices]",
                "[Choices, Item]",
                "[Choices, Item, Text]",
                "[Evaluated]=0",
                "over"
            ]
        );
    }

    #[test]
    fn a_value_is_no_key_and_a_key_in_words_is_no_key() {
        let text = br#"{"content":"eval_count","x":["usage","eval_count",7],"content":"{\"eval_count\":5}"}"#;
        let heard = heard(Framing::Lines, &[text]);
        assert!(heard.iter().all(|heard| !heard.contains("Evaluated")), "{heard:?}");
    }

    #[test]
    fn only_the_data_of_events_is_walked_over() {
        let text = b"event: x\ndata: {\"eval_count\":5}\n\nid: {\"eval_count\":6}\ndata:{\"eval_count\":7}\n: {\"eval_count\":8}\ndata: [DONE]\n\n";
        assert_eq!(
            heard(Framing::Events, &[text]),
            ["[Evaluated]=5", "over", "[Evaluated]=7", "over", "over"]
        );
    }

    #[test]
    fn a_broken_line_does_not_spoil_the_next() {
        let text =
            b"{\"a\":[{\"response\":\"x\n{\"eval_count\":5}\n[[[[\n{\"eval_count\":6\n{\"eval_count\":7}";
        let heard = heard(Framing::Lines, &[text]);
        let counts: Vec<_> = heard.iter().filter(|heard| heard.contains('=')).collect();
        assert_eq!(counts, ["[Evaluated]=5", "[Evaluated]=6", "[Evaluated]=7"]);
    }

    #[test]
    fn no_depth_is_too_deep() {
        let deep = format!("{{\"a\":{}{}}}\n{{\"eval_count\":5}}\n", "[".repeat(10_000), "]".repeat(10_000));
        let heard = heard(Framing::Lines, &[deep.as_bytes()]);
        assert_eq!(&heard[heard.len() - 2..], ["[Evaluated]=5", "over"]);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            lines in prop::collection::vec(prop_oneof![
                Just(r#"data: {"response":"a\\\"b","eval_count":12}"#.to_owned()),
                Just(r#"{"usage":{"prompt_tokens":1e3},"x":[1,[2,{"y":"{}"}]]}"#.to_owned()),
                "[ -~]{0,30}",
            ], 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let text = lines.join("\n");
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            places.extend([0, text.len()]);
            places.sort_unstable();
            let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            for framing in [Framing::Whole, Framing::Lines, Framing::Events] {
                prop_assert_eq!(heard(framing, &pieces), heard(framing, &[text.as_bytes()]));
            }
        }
    }
}
