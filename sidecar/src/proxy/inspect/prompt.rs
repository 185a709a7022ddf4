//! How much of a body its model will read: the bytes of text, the images, the numbers that are tokens already.
//!
//! Only sizes are kept. Keys, roles and types are the API's words and not the client's, so they do not count; an image
//! counts as one, however many bytes its base64 has.

use super::text;

/// The members of a body that some endpoint hands to its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Messages,
    Prompt,
    Input,
    System,
    Instructions,
    Suffix,
    Template,
    Tools,
    Images,
    Context,
}

impl Part {
    const COUNT: usize = 10;

    /// Tools are shown to the model as the JSON that they are.
    pub(super) fn is_shown_as_json(self) -> bool {
        self == Self::Tools
    }
}

/// The size of something that a model reads.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Bytes of UTF-8, escapes resolved.
    pub(crate) text: u64,
    /// Images.
    pub(crate) images: u64,
    /// Numbers: of a list of tokens, one each.
    pub(crate) numbers: u64,
    /// Strings: of a list of texts, one each.
    pub(crate) strings: u64,
}

impl Size {
    fn plus(self, other: Self) -> Self {
        Self {
            text: self.text.saturating_add(other.text),
            images: self.images.saturating_add(other.images),
            numbers: self.numbers.saturating_add(other.numbers),
            strings: self.strings.saturating_add(other.strings),
        }
    }
}

/// The sizes of all parts that a body has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prompt {
    parts: [Size; Part::COUNT],
}

impl Prompt {
    pub(super) fn set(&mut self, part: Part, size: Size) {
        if let Some(place) = self.parts.get_mut(part as usize) {
            *place = size;
        }
    }

    /// The size of one part.
    pub(crate) fn part(&self, part: Part) -> Size {
        self.parts.get(part as usize).copied().unwrap_or_default()
    }

    /// The size of some parts together.
    pub(crate) fn total(&self, parts: &[Part]) -> Size {
        parts.iter().fold(Size::default(), |sum, part| sum.plus(self.part(*part)))
    }
}

/// Where images are written: `images: ["…"]`, `image_url: "…"` or `{"url": "…"}`, `source: {"data": "…"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    Images,
    ImageUrl,
    Source,
}

impl Frame {
    fn of(key: &str) -> Option<Self> {
        [("images", Self::Images), ("image_url", Self::ImageUrl), ("source", Self::Source)]
            .into_iter()
            .find_map(|(name, frame)| text::folds_to(key, name).then_some(frame))
    }
}

/// Measures a value while it is scanned.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    size: Size,
    /// The value that comes next is in such a frame.
    next: Option<Frame>,
    /// The containers that are open are in such a frame, from this depth on.
    inside: Option<(Frame, u32)>,
    /// The string that comes next is the image itself, where its frame is an object.
    payload: bool,
    /// The string that comes next is a word of the API.
    formal: bool,
}

impl Gauge {
    /// For the value of an outermost key.
    pub(super) fn of(part: Part) -> Self {
        Self { next: (part == Part::Images).then_some(Frame::Images), ..Self::default() }
    }

    pub(super) fn size(&self) -> Size {
        self.size
    }

    pub(super) fn key(&mut self, key: &str) {
        match self.inside {
            None => {
                self.next = Frame::of(key);
                self.formal = text::folds_to(key, "role") || text::folds_to(key, "type");
            }
            Some(_) => self.payload = text::folds_to(key, "url") || text::folds_to(key, "data"),
        }
    }

    pub(super) fn number(&mut self) {
        (self.next, self.formal) = (None, false);
        self.size.numbers += 1;
    }

    pub(super) fn string(&mut self, inner: &str) {
        let formal = std::mem::take(&mut self.formal);
        let is_image = match (self.inside, self.next.take()) {
            (Some((Frame::Images, _)), _) | (None, Some(Frame::Images | Frame::ImageUrl)) => true,
            (Some(_), _) => self.payload,
            (None, _) => false,
        };
        if is_image {
            self.size.images += 1;
        } else if self.inside.is_none() && !formal {
            self.size.text += text::length(inner);
            self.size.strings += 1;
        }
    }

    /// A container opened, and is `depth` deep.
    pub(super) fn opened(&mut self, depth: u32, object: bool) {
        let frame = self.next.take();
        (self.payload, self.formal) = (false, false);
        if self.inside.is_none() {
            // An object under `images` or a list under `source` is no image, and no text that Ollama would take.
            self.inside =
                frame.filter(|frame| object != (*frame == Frame::Images)).map(|frame| (frame, depth));
        }
    }

    /// The container that is `depth` deep closed.
    pub(super) fn closed(&mut self, depth: u32) {
        self.inside = self.inside.filter(|(_, from)| *from < depth);
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::scan;
    use super::*;

    fn size(body: &str, part: Part) -> Size {
        scan(body.as_bytes()).unwrap().prompt.part(part)
    }

    #[test]
    fn text_counts_by_its_bytes_and_keys_do_not() {
        for (body, part, text) in [
            (r#"{"prompt":"hello"}"#, Part::Prompt, 5),
            (r#"{"PROMPT":"\"\n\u00e9\ud83d\ude00"}"#, Part::Prompt, 8),
            (r#"{"messages":[{"role":"user","content":"hello"}]}"#, Part::Messages, 5),
            (
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"hello"}]}]}"#,
                Part::Messages,
                5,
            ),
            (r#"{"input":["ab","cde"]}"#, Part::Input, 5),
            (r#"{"system":"a","prompt":"bc"}"#, Part::System, 1),
            (r#"{"tools":[{"a":1}]}"#, Part::Tools, 9),
            (r#"{"x":{"prompt":"no"}}"#, Part::Prompt, 0),
        ] {
            assert_eq!(size(body, part).text, text, "{body}");
        }
    }

    #[test]
    fn an_image_is_one_however_it_is_written_and_however_long_it_is() {
        let image = "A".repeat(10_000);
        for (body, part) in [
            (format!(r#"{{"images":["{image}"]}}"#), Part::Images),
            (format!(r#"{{"messages":[{{"content":"hey","images":["{image}"]}}]}}"#), Part::Messages),
            (
                format!(
                    r#"{{"messages":[{{"content":[{{"type":"","text":"hey"}},{{"type":"","image_url":{{"url":"data:{image}","detail":"high"}}}}]}}]}}"#
                ),
                Part::Messages,
            ),
            (format!(r#"{{"input":[{{"content":["hey",{{"image_url":"data:{image}"}}]}}]}}"#), Part::Input),
            (
                format!(
                    r#"{{"messages":[{{"content":["hey",{{"source":{{"type":"base64","media_type":"image/png","data":"{image}"}}}}]}}]}}"#
                ),
                Part::Messages,
            ),
        ] {
            let size = size(&body, part);
            let text = if part == Part::Images { 0 } else { 3 };
            assert_eq!((size.images, size.text), (1, text), "{}", &body[..60]);
        }
        let two = r#"{"messages":[{"images":["a","b"],"content":"hey"},{"content":"you"}]}"#;
        assert_eq!(size(two, Part::Messages), Size { text: 6, images: 2, numbers: 0, strings: 2 });
    }

    #[test]
    fn words_under_a_key_that_only_looks_like_an_image_are_words() {
        for body in [
            r#"{"messages":[{"content":[{"input":{"source":"code"}}]}]}"#,
            r#"{"messages":[{"content":[{"input":{"source":["code"]}}]}]}"#,
            r#"{"messages":[{"content":[{"data":"code"}]}]}"#,
            r#"{"messages":[{"images":{"x":"code"}}]}"#,
        ] {
            assert_eq!(
                size(body, Part::Messages),
                Size { text: 4, images: 0, numbers: 0, strings: 1 },
                "{body}"
            );
        }
    }

    #[test]
    fn lists_of_tokens_and_of_texts_are_counted() {
        assert_eq!(size(r#"{"input":[[1,2,3],[4]]}"#, Part::Input).numbers, 4);
        assert_eq!(size(r#"{"input":[]}"#, Part::Input), Size::default());
        assert_eq!(size(r#"{"input":["a","b"]}"#, Part::Input).strings, 2);
        assert_eq!(size(r#"{"context":[1,2]}"#, Part::Context).numbers, 2);
    }

    #[test]
    fn parts_add_up() {
        let body = scan(br#"{"prompt":"ab","system":"c","suffix":"unread"}"#).unwrap();
        assert_eq!(body.prompt.total(&[Part::Prompt, Part::System]).text, 3);
    }
}
