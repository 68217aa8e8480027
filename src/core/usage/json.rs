//! Finds the numbers of `usage` in JSON that comes in pieces: one pass, no tree, no recursion. Not a check: what is
//! no JSON ends it, or is passed over.

use memchr::memchr;

use super::{Count, Counts};
use crate::core::block::{dull_len, plain_len};
use crate::core::request::decode;

/// The longest key that matters, each character an escape.
const MAX_KEY: usize = 6 * "cache_creation_input_tokens".len();
/// The shortest one that has an escape.
const MIN_ESCAPED: usize = "\\u0075sage".len();
/// No answer takes so many tokens: it would spoil the sum of all others for good.
const MAX_COUNT: u64 = u32::MAX as u64;

/// The keys of interest in a place, and what their values are for.
type Keys = &'static [(&'static [u8], Target)];

const IN_ANSWER: Keys = &[(b"usage", Target::Object(Place::Usage))];
const IN_EVENT: Keys = &[
    (b"usage", Target::Object(Place::Usage)),
    (b"message", Target::Object(Place::Wrapper)),
    (b"response", Target::Object(Place::Wrapper)),
];
const IN_USAGE: Keys = &[
    (b"prompt_tokens", Target::Count(Count::Prompt)),
    (b"input_tokens", Target::Count(Count::Input)),
    (b"completion_tokens", Target::Count(Count::Output)),
    (b"output_tokens", Target::Count(Count::Output)),
    (b"prompt_tokens_details", Target::Object(Place::Details)),
    (b"input_tokens_details", Target::Object(Place::Details)),
    // As DeepSeek has it, and Moonshot.
    (b"prompt_cache_hit_tokens", Target::Count(Count::Cached)),
    (b"cached_tokens", Target::Count(Count::Cached)),
    (b"cache_read_input_tokens", Target::Count(Count::CacheRead)),
    (
        b"cache_creation_input_tokens",
        Target::Count(Count::CacheCreation),
    ),
];
const IN_DETAILS: Keys = &[(b"cached_tokens", Target::Count(Count::Cached))];

/// Reads one JSON object after the other; `reset` lies between them.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// What all of them said.
    pub counts: Counts,
    /// Also reads the `usage` of `message` and `response`, which events wrap.
    pub looks_into_events: bool,
    state: State,
    place: Place,
    /// The place is within `message` or `response`.
    wrapped: bool,
    /// Objects and arrays that are open in this place, and hold nothing of interest.
    skipped: u32,
    /// What came of the key that is being read, as it is written, where it is cut.
    key: Vec<u8>,
}

/// The object of interest that is open.
#[derive(Debug, Default, Clone, Copy)]
enum Place {
    #[default]
    Top,
    /// `message` or `response`.
    Wrapper,
    Usage,
    /// `prompt_tokens_details` or `input_tokens_details`.
    Details,
}

/// What comes next.
#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// The object.
    #[default]
    Before,
    /// A key of the place, or its end.
    Key,
    /// The rest of a key. `true`: the byte after a backslash is first.
    InKey(bool),
    /// The value of a key.
    Value(Target),
    /// The rest of a number; `None`: not a count.
    Number(Count, Option<u64>),
    /// The rest of a value, and what follows it.
    Rest,
    /// The same, within a string. `true`: as above.
    InString(bool),
    /// Nothing.
    Over,
}

/// What a value is to be read for.
#[derive(Debug, Clone, Copy)]
enum Target {
    Nothing,
    Count(Count),
    Object(Place),
}

impl Scanner {
    /// Takes in the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.is_over() {
            let read = self.read(bytes);
            bytes = bytes.get(read..).unwrap_or_default();
        }
    }

    /// Whether the object has ended, or none can come.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Whether nothing of the object has come.
    pub fn is_before(&self) -> bool {
        matches!(self.state, State::Before)
    }

    /// Makes ready for the next object.
    pub fn reset(&mut self) {
        self.state = State::Before;
        self.place = Place::Top;
        self.wrapped = false;
        self.skipped = 0;
    }

    /// Reads on, up to the next change of state at most. Returns how many bytes were read.
    fn read(&mut self, bytes: &[u8]) -> usize {
        match self.state {
            State::Before => self.before(bytes),
            State::Key => self.key(bytes),
            State::InKey(escaped) => self.in_key(bytes, escaped),
            State::Value(target) => self.value(bytes, target),
            State::Number(count, number) => self.number(bytes, count, number),
            State::Rest => self.rest(bytes),
            State::InString(escaped) => {
                let (read, state) = in_string(bytes, escaped);
                self.state = state.map_or(State::Rest, State::InString);
                read
            }
            State::Over => bytes.len(),
        }
    }

    fn before(&mut self, bytes: &[u8]) -> usize {
        let (space, next) = space(bytes, b' ');
        match next {
            None => return space,
            Some(b'{') => self.state = State::Key,
            Some(_) => self.state = State::Over,
        }
        space + 1
    }

    fn key(&mut self, bytes: &[u8]) -> usize {
        let (space, next) = space(bytes, b',');
        match next {
            None => return space,
            Some(b'"') => {
                self.key.clear();
                self.state = State::InKey(false);
            }
            Some(b'}') => self.close(),
            Some(_) => self.state = State::Over,
        }
        space + 1
    }

    fn in_key(&mut self, bytes: &[u8], escaped: bool) -> usize {
        let (read, state) = in_string(bytes, escaped);
        let is_whole = state.is_none();
        let key = bytes.get(..read - usize::from(is_whole));
        let key = key.unwrap_or_default();
        self.state = match state {
            None if self.key.is_empty() => State::Value(self.target(key)),
            _ => {
                // A key that is too long is cut, and so is none that is known.
                let room = MAX_KEY + 1 - self.key.len();
                self.key.extend_from_slice(key.get(..room).unwrap_or(key));
                match state {
                    Some(escaped) => State::InKey(escaped),
                    None => State::Value(self.target(&self.key)),
                }
            }
        };
        read
    }

    /// What the value of a key is for.
    fn target(&self, key: &[u8]) -> Target {
        let known = self.known(key);
        if known.is_some() || key.len() < MIN_ESCAPED || memchr(b'\\', key).is_none() {
            return known.unwrap_or(Target::Nothing);
        }
        let mut quoted = String::from('"');
        quoted.push_str(std::str::from_utf8(key).unwrap_or_default());
        quoted.push('"');
        let known = decode(&quoted).and_then(|key| self.known(key.as_bytes()));
        known.unwrap_or(Target::Nothing)
    }

    fn known(&self, key: &[u8]) -> Option<Target> {
        let keys = match self.place {
            Place::Top if self.looks_into_events => IN_EVENT,
            Place::Top | Place::Wrapper => IN_ANSWER,
            Place::Usage => IN_USAGE,
            Place::Details => IN_DETAILS,
        };
        let found = keys.iter().find(|(name, _)| *name == key);
        found.map(|(_, target)| *target)
    }

    fn value(&mut self, bytes: &[u8], target: Target) -> usize {
        let (space, next) = space(bytes, b':');
        self.state = match (next, target) {
            (None, _) => State::Value(target),
            (Some(b'{'), Target::Object(place)) => {
                self.wrapped |= matches!(place, Place::Wrapper);
                self.place = place;
                self.state = State::Key;
                return space + 1;
            }
            (Some(b'0'..=b'9'), Target::Count(count)) => State::Number(count, Some(0)),
            _ => State::Rest,
        };
        space
    }

    fn number(&mut self, bytes: &[u8], count: Count, mut number: Option<u64>) -> usize {
        for (at, byte) in bytes.iter().enumerate() {
            number = match byte {
                b'0'..=b'9' => number
                    .map(|number| number * 10 + u64::from(byte - b'0'))
                    .filter(|number| *number <= MAX_COUNT),
                // A fraction, or no number at all.
                b'.' | b'e' | b'E' | b'+' | b'-' => None,
                _ => {
                    if let Some(number) = number {
                        self.counts.add(count, number);
                    }
                    self.state = State::Rest;
                    return at;
                }
            };
        }
        self.state = State::Number(count, number);
        bytes.len()
    }

    /// Passes over what is left of a value, up to the comma or the bracket that follows it. Nearly all bytes of an
    /// answer come by here.
    fn rest(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        let mut skipped = self.skipped;
        loop {
            if skipped > 0 {
                at += dull_len(bytes.get(at..).unwrap_or_default());
            }
            let Some(byte) = bytes.get(at) else {
                break;
            };
            at += 1;
            match byte {
                b'"' => {
                    let (read, state) = in_string(bytes.get(at..).unwrap_or_default(), false);
                    at += read;
                    if let Some(escaped) = state {
                        self.state = State::InString(escaped);
                        break;
                    }
                }
                b'{' | b'[' => skipped = skipped.saturating_add(1),
                b'}' | b']' if skipped > 0 => skipped -= 1,
                b'}' => {
                    self.close();
                    break;
                }
                b']' => {
                    self.state = State::Over;
                    break;
                }
                b',' if skipped == 0 => {
                    self.state = State::Key;
                    break;
                }
                _ => {}
            }
        }
        self.skipped = skipped;
        at
    }

    /// The object of interest ends.
    fn close(&mut self) {
        self.state = State::Rest;
        self.place = match self.place {
            Place::Details => Place::Usage,
            Place::Usage if self.wrapped => Place::Wrapper,
            Place::Usage | Place::Wrapper => {
                self.wrapped = false;
                Place::Top
            }
            Place::Top => {
                self.state = State::Over;
                Place::Top
            }
        };
    }
}

/// The first byte of the value, of all that stands behind a key.
pub(super) fn value_start(bytes: &[u8]) -> Option<u8> {
    space(bytes, b':').1
}

/// How many bytes at the start are white space, or `also`, and the byte behind them.
fn space(bytes: &[u8], also: u8) -> (usize, Option<u8>) {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == also;
    let space = bytes.iter().take_while(|byte| is_space(byte)).count();
    (space, bytes.get(space).copied())
}

/// Reads the rest of a string. Returns how many bytes were read, and what [`State::InString`] holds where its end is not
/// here yet.
fn in_string(bytes: &[u8], escaped: bool) -> (usize, Option<bool>) {
    let mut at = usize::from(escaped);
    loop {
        at += plain_len(bytes.get(at..).unwrap_or_default());
        match bytes.get(at) {
            Some(b'"') => return (at + 1, None),
            Some(b'\\') if at + 1 == bytes.len() => return (bytes.len(), Some(true)),
            Some(b'\\') => at += 2,
            // A control character, which JSON does not allow.
            Some(_) => at += 1,
            None => return (bytes.len(), Some(false)),
        }
    }
}
