//! How many tokens an answer took, as it says itself: read from its bytes as they pass, in chunks of any cut.
//!
//! Nothing of the answer is kept but the numbers and the key that is being read, so that its length does not
//! matter. Where an answer is no JSON, or is cut off, what it said before that counts.

mod events;
mod json;

use events::Lines;
use json::Scanner;

/// The tokens that an answer took. `None`: it does not say.
///
/// Services count in two ways, and here it is always the first: that `prompt` holds all tokens of the prompt, and
/// `cached` those of them that came from the service's cache. So does OpenAI. Anthropic's `input_tokens` are those
/// that no cache had a part in, and the others are added to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// All tokens of the prompt.
    pub prompt: Option<u64>,
    /// All tokens of the answer. Embeddings have none.
    pub completion: Option<u64>,
    /// The part of `prompt` that the service had in its cache.
    pub cached: Option<u64>,
}

/// Reads the token usage of one answer.
#[derive(Debug, Default)]
pub struct UsageReader {
    format: Format,
    lines: Lines,
    json: Scanner,
}

/// What an answer is, as its first byte says: `{` begins a whole one. Its `content-type` would cost a host call, and
/// is often wrong.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Format {
    /// Nothing came but white space.
    #[default]
    Unknown,
    /// One JSON object.
    Whole,
    /// Server-sent events.
    Events,
    /// Compressed, audio, or anything else.
    Other,
}

impl UsageReader {
    /// Takes in the next bytes of the answer.
    pub fn feed(&mut self, bytes: &[u8]) {
        let bytes = match self.format {
            Format::Unknown => self.begin(bytes),
            _ => bytes,
        };
        match self.format {
            Format::Whole => self.json.feed(bytes),
            Format::Events => self.lines.feed(bytes, &mut self.json),
            Format::Unknown | Format::Other => {}
        }
    }

    /// Whether more bytes could say more.
    #[must_use]
    pub fn wants_more(&self) -> bool {
        match self.format {
            Format::Unknown | Format::Events => true,
            Format::Whole => !self.json.is_over(),
            Format::Other => false,
        }
    }

    /// What the answer has said so far; `None`: nothing.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        let usage = self.json.counts.usage();
        (usage != Usage::default()).then_some(usage)
    }

    fn begin<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let bytes = bytes.trim_ascii_start();
        self.format = match bytes.first() {
            None => Format::Unknown,
            Some(b'{') => Format::Whole,
            // A field, a comment, or a byte order mark.
            Some(b'a'..=b'z' | b':' | 0xef) => Format::Events,
            Some(_) => Format::Other,
        };
        self.json.looks_into_events = self.format == Format::Events;
        bytes
    }
}

/// The numbers as services tell them. Of a number that is told again, in a later event, the largest counts: they all
/// are totals so far.
#[derive(Debug, Default)]
struct Counts {
    /// `prompt_tokens`, cached ones included.
    prompt: Option<u64>,
    /// `input_tokens`, cached ones included or not.
    input: Option<u64>,
    /// `completion_tokens`, `output_tokens`.
    output: Option<u64>,
    /// `cached_tokens`, mostly of `prompt_tokens_details` or `input_tokens_details`; `prompt_cache_hit_tokens`.
    cached: Option<u64>,
    /// `cache_read_input_tokens`.
    cache_read: Option<u64>,
    /// `cache_creation_input_tokens`.
    cache_creation: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Count {
    Prompt,
    Input,
    Output,
    Cached,
    CacheRead,
    CacheCreation,
}

impl Counts {
    fn add(&mut self, count: Count, number: u64) {
        let told = match count {
            Count::Prompt => &mut self.prompt,
            Count::Input => &mut self.input,
            Count::Output => &mut self.output,
            Count::Cached => &mut self.cached,
            Count::CacheRead => &mut self.cache_read,
            Count::CacheCreation => &mut self.cache_creation,
        };
        *told = (*told).max(Some(number));
    }

    fn usage(&self) -> Usage {
        // A gateway in between may tell Anthropic's numbers beside OpenAI's, which hold them.
        let beside = match self.cached {
            None => self.cache_read.unwrap_or_default() + self.cache_creation.unwrap_or_default(),
            Some(_) => 0,
        };
        Usage {
            prompt: self.prompt.or(self.input.map(|input| input + beside)),
            completion: self.output,
            cached: self.cached.or(self.cache_read),
        }
    }
}

#[cfg(test)]
mod tests;
