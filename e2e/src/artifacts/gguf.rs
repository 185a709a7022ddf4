//! Writes tiny GGUF models: real ones for the engine, whose text is known beforehand.
//!
//! The transformer layers compute but add nothing to the residual stream. Each letter's embedding is a direction of
//! its own, and the output matrix maps that direction to the next letter, so that every prompt is continued with
//! `abc…z abc…` whatever the sampling. No end-of-text token is ever likely: an answer has exactly as many tokens as
//! were asked for. Width and depth set the cost of a token.

use std::collections::HashMap;

/// The size of a model. More width and depth, more time per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Embedding length: a multiple of 64, so that heads and key-value heads come out even.
    pub width: usize,
    /// Transformer blocks.
    pub depth: usize,
    /// Longest context in tokens.
    pub context: u32,
}

const VERSION: u32 = 3;
const ALIGNMENT: usize = 32;
const HEAD_WIDTH: usize = 32;
const TYPE_U32: u32 = 4;
const TYPE_I32: u32 = 5;
const TYPE_F32: u32 = 6;
const TYPE_BOOL: u32 = 7;
const TYPE_STRING: u32 = 8;
const TYPE_ARRAY: u32 = 9;
const TENSOR_F32: u32 = 0;
const TENSOR_F16: u32 = 1;
const MOSTLY_F16: u32 = 1;
const TOKEN_NORMAL: i32 = 1;
const TOKEN_CONTROL: i32 = 3;

/// A few real merges, so that a prompt has fewer tokens than bytes.
const MERGES: [&str; 10] = ["t h", "th e", "i n", "a n", "an d", "e r", "o u", "Ġ t", "Ġ a", "Ġ the"];
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const CHAT_TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}\
                             {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The bytes of a model file.
pub fn model(name: &str, shape: Shape) -> Vec<u8> {
    let vocabulary = Vocabulary::new();
    let tensors = tensors(shape, &vocabulary);
    let fields = fields(name, shape, &vocabulary);
    let mut file = Vec::new();
    file.extend(b"GGUF");
    file.extend(VERSION.to_le_bytes());
    put_len(&mut file, tensors.len());
    put_len(&mut file, fields.count);
    file.extend(fields.bytes);
    let mut offset = 0;
    for tensor in &tensors {
        tensor.describe(&mut file, offset);
        offset += tensor.data.len().next_multiple_of(ALIGNMENT);
    }
    for tensor in &tensors {
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(&tensor.data);
    }
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    file
}

/// Byte-level BPE in the manner of GPT-2: 256 byte tokens, some merges, three special ones.
struct Vocabulary {
    tokens: Vec<String>,
    ids: HashMap<String, usize>,
}

impl Vocabulary {
    fn new() -> Self {
        let mut tokens: Vec<String> = byte_characters().into_iter().map(String::from).collect();
        tokens.extend(MERGES.iter().map(|merge| merge.replace(' ', "")));
        tokens.extend(SPECIAL.map(String::from));
        let ids = tokens.iter().enumerate().map(|(id, token)| (token.clone(), id)).collect();
        Self { tokens, ids }
    }

    fn id(&self, token: &str) -> usize {
        self.ids.get(token).copied().unwrap_or_default()
    }

    /// The cycle that is generated: the letters, then a space.
    fn cycle(&self) -> Vec<usize> {
        ('a'..='z').chain(['Ġ']).map(|c| self.id(&c.to_string())).collect()
    }
}

/// The printable character that stands for each byte: itself where it is printable, else one from U+0100 on.
fn byte_characters() -> Vec<char> {
    let printable = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut next = 256;
    let character = |byte: u32| {
        let code = if printable(byte) { byte } else { next };
        next += u32::from(!printable(byte));
        char::from_u32(code).unwrap_or_default()
    };
    (0..256).map(character).collect()
}

/// Key-value fields in file form.
#[derive(Default)]
struct Fields {
    bytes: Vec<u8>,
    count: usize,
}

impl Fields {
    fn key(&mut self, key: &str, kind: u32) -> &mut Vec<u8> {
        self.count += 1;
        put_text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
        &mut self.bytes
    }

    fn number(&mut self, key: &str, value: u32) {
        self.key(key, TYPE_U32).extend(value.to_le_bytes());
    }

    fn real(&mut self, key: &str, value: f32) {
        self.key(key, TYPE_F32).extend(value.to_le_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        put_text(self.key(key, TYPE_STRING), value);
    }

    fn list(&mut self, key: &str, kind: u32, count: usize) -> &mut Vec<u8> {
        let bytes = self.key(key, TYPE_ARRAY);
        bytes.extend(kind.to_le_bytes());
        put_len(bytes, count);
        bytes
    }

    fn texts<'a>(&mut self, key: &str, values: impl ExactSizeIterator<Item = &'a str>) {
        let bytes = self.list(key, TYPE_STRING, values.len());
        values.for_each(|value| put_text(bytes, value));
    }
}

fn fields(name: &str, shape: Shape, vocabulary: &Vocabulary) -> Fields {
    let mut fields = Fields::default();
    fields.text("general.architecture", "llama");
    fields.text("general.name", name);
    fields.number("general.file_type", MOSTLY_F16);
    fields.number("llama.context_length", shape.context);
    fields.number("llama.embedding_length", number(shape.width));
    fields.number("llama.block_count", number(shape.depth));
    fields.number("llama.feed_forward_length", number(shape.width * 2));
    fields.number("llama.attention.head_count", number(shape.width / HEAD_WIDTH));
    fields.number("llama.attention.head_count_kv", number(shape.width / HEAD_WIDTH / 2));
    fields.real("llama.attention.layer_norm_rms_epsilon", 1e-5);
    fields.real("llama.rope.freq_base", 10_000.0);
    fields.number("llama.rope.dimension_count", number(HEAD_WIDTH));
    fields.number("llama.vocab_size", number(vocabulary.tokens.len()));
    tokenizer_fields(&mut fields, vocabulary);
    fields
}

fn tokenizer_fields(fields: &mut Fields, vocabulary: &Vocabulary) {
    fields.text("tokenizer.ggml.model", "gpt2");
    fields.text("tokenizer.ggml.pre", "llama-bpe");
    fields.texts("tokenizer.ggml.tokens", vocabulary.tokens.iter().map(String::as_str));
    let kinds = fields.list("tokenizer.ggml.token_type", TYPE_I32, vocabulary.tokens.len());
    for token in &vocabulary.tokens {
        let kind = if SPECIAL.contains(&token.as_str()) { TOKEN_CONTROL } else { TOKEN_NORMAL };
        kinds.extend(kind.to_le_bytes());
    }
    fields.texts("tokenizer.ggml.merges", MERGES.iter().copied());
    fields.number("tokenizer.ggml.bos_token_id", number(vocabulary.id("<|endoftext|>")));
    fields.number("tokenizer.ggml.eos_token_id", number(vocabulary.id("<|im_end|>")));
    fields.number("tokenizer.ggml.padding_token_id", number(vocabulary.id("<|endoftext|>")));
    fields.key("tokenizer.ggml.add_bos_token", TYPE_BOOL).push(0);
    fields.text("tokenizer.chat_template", CHAT_TEMPLATE);
}

/// One tensor in file form. `dimensions` has the innermost first.
struct Tensor {
    name: String,
    dimensions: Vec<usize>,
    kind: u32,
    data: Vec<u8>,
}

impl Tensor {
    fn f32(name: &str, values: &[f32]) -> Self {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: name.to_owned(), dimensions: vec![values.len()], kind: TENSOR_F32, data }
    }

    fn f16(name: &str, columns: usize, values: &[f32]) -> Self {
        let data = values.iter().flat_map(|value| half(*value).to_le_bytes()).collect();
        let dimensions = vec![columns, values.len() / columns.max(1)];
        Self { name: name.to_owned(), dimensions, kind: TENSOR_F16, data }
    }

    /// A matrix of values that do not matter: made as bytes, for it may be large.
    fn filled(name: &str, columns: usize, rows: usize, pattern: &[u8]) -> Self {
        let length = columns * rows * 2;
        let mut data = Vec::with_capacity(length + pattern.len());
        while data.len() < length {
            data.extend_from_slice(pattern);
        }
        data.truncate(length);
        Self { name: name.to_owned(), dimensions: vec![columns, rows], kind: TENSOR_F16, data }
    }

    fn describe(&self, file: &mut Vec<u8>, offset: usize) {
        put_text(file, &self.name);
        file.extend(number(self.dimensions.len()).to_le_bytes());
        self.dimensions.iter().for_each(|dimension| put_len(file, *dimension));
        file.extend(self.kind.to_le_bytes());
        put_len(file, offset);
    }
}

fn tensors(shape: Shape, vocabulary: &Vocabulary) -> Vec<Tensor> {
    let width = shape.width;
    let mut tensors = vec![
        Tensor::f16("token_embd.weight", width, &embeddings(width, vocabulary)),
        Tensor::f32("output_norm.weight", &vec![1.0; width]),
        Tensor::f16("output.weight", width, &output_matrix(width, vocabulary)),
    ];
    for block in 0..shape.depth {
        tensors.extend(block_tensors(block, width));
    }
    tensors
}

/// A block whose last two matrices are zero: it costs time and changes nothing.
fn block_tensors(block: usize, width: usize) -> Vec<Tensor> {
    let name = |part: &str| format!("blk.{block}.{part}.weight");
    let pattern: Vec<u8> = noise(8191).into_iter().flat_map(|value| half(value).to_le_bytes()).collect();
    let matrix = |part: &str, columns, rows| Tensor::filled(&name(part), columns, rows, &pattern);
    let zeros = |part: &str, columns, rows| Tensor::filled(&name(part), columns, rows, &[0; 8192]);
    let ones = |part: &str| Tensor::f32(&name(part), &vec![1.0; width]);
    vec![
        ones("attn_norm"),
        matrix("attn_q", width, width),
        matrix("attn_k", width, width / 2),
        matrix("attn_v", width, width / 2),
        zeros("attn_output", width, width),
        ones("ffn_norm"),
        matrix("ffn_gate", width, width * 2),
        matrix("ffn_up", width, width * 2),
        zeros("ffn_down", width * 2, width),
    ]
}

/// Column 0 is 1 for every token: the constant that carries a bias. A token of the cycle has a column of its own;
/// every other one is noise outside those columns. Every row has the length √2.
fn embeddings(width: usize, vocabulary: &Vocabulary) -> Vec<f32> {
    let cycle = vocabulary.cycle();
    let first_free = 1 + cycle.len();
    let mut rows = noise(width * vocabulary.tokens.len());
    for (token, row) in rows.chunks_mut(width).enumerate() {
        let place = cycle.iter().position(|id| *id == token);
        let (reserved, free) = row.split_at_mut(first_free.min(width));
        reserved.fill(0.0);
        let length = free.iter().map(|value| value * value).sum::<f32>().sqrt();
        for value in free.iter_mut() {
            *value = if place.is_some() { 0.0 } else { *value / length };
        }
        set(row, 0, 1.0);
        if let Some(place) = place {
            set(row, 1 + place, 1.0);
        }
    }
    rows
}

/// A token of the cycle makes its successor likely; anything else makes `a` likely; the rest is held down.
fn output_matrix(width: usize, vocabulary: &Vocabulary) -> Vec<f32> {
    let cycle = vocabulary.cycle();
    // The last norm scales rows of length √2 by this much.
    let unit = 1.0 / f32::sqrt(f32::from(u16::try_from(width).unwrap_or(u16::MAX)) / 2.0);
    let mut rows = vec![0.0; width * vocabulary.tokens.len()];
    for (token, row) in rows.chunks_mut(width).enumerate() {
        let Some(place) = cycle.iter().position(|id| *id == token) else {
            set(row, 0, -60.0 * unit);
            continue;
        };
        let predecessor = (place + cycle.len() - 1) % cycle.len();
        set(row, 1 + predecessor, 60.0 * unit);
        set(row, 0, if place == 0 { 30.0 * unit } else { 0.0 });
    }
    rows
}

fn set(row: &mut [f32], column: usize, value: f32) {
    if let Some(cell) = row.get_mut(column) {
        *cell = value;
    }
}

/// Small numbers that look random and are the same every time. They repeat, which nothing here notices.
fn noise(count: usize) -> Vec<f32> {
    let mut state: u32 = 0x9E37_79B9;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let byte = u8::try_from(state >> 24).unwrap_or_default();
        (f32::from(byte) - 127.5) / 1024.0
    };
    let pattern: Vec<f32> = (0..8191).map(|_| next()).collect();
    pattern.iter().copied().cycle().take(count).collect()
}

/// The nearest half-precision number below; what is too small for one becomes 0.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let exponent = ((bits >> 23) & 0xFF).cast_signed() - 127 + 15;
    let rest = match exponent {
        ..=0 => 0,
        1..=30 => (exponent.cast_unsigned() << 10) | ((bits >> 13) & 0x3FF),
        _ => 0x7BFF,
    };
    u16::try_from(sign | rest).unwrap_or_default()
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn put_len(bytes: &mut Vec<u8>, value: usize) {
    bytes.extend((value as u64).to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_len(bytes, text.len());
    bytes.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(x, y)| x * y).sum()
    }

    /// What the engine computes for one token: the blocks add nothing, the norm scales, the output matrix decides.
    fn most_likely_after(token: usize, width: usize) -> usize {
        let vocabulary = Vocabulary::new();
        let (embeddings, output) = (embeddings(width, &vocabulary), output_matrix(width, &vocabulary));
        let row = embeddings.chunks(width).nth(token).unwrap();
        let scores = output.chunks(width).map(|out| dot(out, row));
        scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0
    }

    #[test]
    fn letters_are_followed_by_their_successors() {
        let vocabulary = Vocabulary::new();
        for (token, next) in [("a", "b"), ("y", "z"), ("z", "Ġ"), ("Ġ", "a")] {
            assert_eq!(most_likely_after(vocabulary.id(token), 128), vocabulary.id(next), "after {token}");
        }
    }

    #[test]
    fn any_other_token_starts_the_cycle() {
        let vocabulary = Vocabulary::new();
        for token in ["7", "the", "<|im_end|>", "Ċ"] {
            assert_eq!(most_likely_after(vocabulary.id(token), 128), vocabulary.id("a"), "after {token}");
        }
    }

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        let characters = byte_characters();
        assert_eq!(characters.len(), 256);
        assert_eq!((characters[b'A' as usize], characters[b' ' as usize]), ('A', 'Ġ'));
        let distinct: std::collections::HashSet<_> = characters.iter().collect();
        assert_eq!(distinct.len(), 256);
    }

    #[test]
    fn half_precision_keeps_simple_numbers() {
        assert_eq!((half(1.0), half(-2.0), half(0.5), half(0.0)), (0x3C00, 0xC000, 0x3800, 0));
        assert_eq!((half(1e-9), half(1e9)), (0, 0x7BFF));
    }

    #[test]
    fn a_model_file_starts_with_its_counts_and_is_the_same_every_time() {
        let shape = Shape { width: 64, depth: 1, context: 256 };
        let file = model("t", shape);
        assert_eq!(&file[..8], b"GGUF\x03\0\0\0");
        assert_eq!(u64::from_le_bytes(file[8..16].try_into().unwrap()), 3 + 9);
        assert_eq!(file, model("t", shape));
    }
}
