//! The top-level members of a JSON object, in order.

use std::borrow::Cow;
use std::ops::Range;

use super::BodyError;
use super::text::Text;
use super::value::{Stop, skip_value};
use crate::core::config::Node;

/// Reads the members one by one. Keys may repeat.
pub(crate) struct Members<'a> {
    text: Text<'a>,
    start: usize,
    at: usize,
}

/// One member of the top-level object.
pub(crate) struct Member<'a> {
    key: &'a [u8],
    /// The offset behind the member before it, or behind the opening brace.
    pub start: usize,
    value: &'a [u8],
    /// Where the value stands, as offsets into the whole text.
    pub span: Range<usize>,
}

impl<'a> Members<'a> {
    /// Opens the object. Errors where there is none, or where the text is not UTF-8 throughout.
    pub fn of(json: &'a [u8]) -> Result<Self, BodyError> {
        let text = Text(json);
        let at = text.space(0);
        match text.byte(at) {
            Some(b'{') => {}
            Some(_) => return Err(BodyError::NotAnObject),
            None => return Err(BodyError::Empty),
        }
        // `simdutf8` only says whether it is UTF-8. The slower check finds the offset, for the error.
        if simdutf8::basic::from_utf8(json).is_err() {
            std::str::from_utf8(json).map_err(|error| BodyError::NotUtf8 {
                offset: error.valid_up_to(),
            })?;
        }
        Ok(Self {
            text,
            start: at + 1,
            at: at + 1,
        })
    }

    /// The offset behind the opening brace.
    pub fn start(&self) -> usize {
        self.start
    }

    /// The offset behind the comma that follows the member that was read last; where none follows,
    /// behind the member.
    pub fn behind_comma(&self) -> usize {
        let at = self.text.space(self.at);
        match self.text.byte(at) {
            Some(b',') => at + 1,
            _ => self.at,
        }
    }

    /// The next member. `None` once the object and the text have ended as they should.
    pub fn next(&mut self) -> Result<Option<Member<'a>>, BodyError> {
        self.read().map_err(|stop| self.explain(stop))
    }

    /// After an error of [`next`](Self::next): the member whose value has no end. It is all that is left.
    pub fn cut(&self) -> Option<Member<'a>> {
        let (key, value) = self.key().ok()??;
        Some(self.member(key, value..self.text.0.len()))
    }

    fn read(&mut self) -> Result<Option<Member<'a>>, Stop> {
        let Some((key, value)) = self.key()? else {
            return Ok(None);
        };
        let end = skip_value(self.text, value)?;
        let member = self.member(key, value..end);
        self.at = end;
        Ok(Some(member))
    }

    /// Where the key of the next member stands, and where its value begins.
    fn key(&self) -> Result<Option<(Range<usize>, usize)>, Stop> {
        let text = self.text;
        let at = text.space(self.at);
        let key = match text.byte(at) {
            Some(b'}') => return self.finish(at + 1).map(|()| None),
            _ if self.at == self.start => at,
            Some(b',') => text.space(at + 1),
            _ => return Err(Stop::At(at)),
        };
        let key_end = text.string(key)?;
        let value = text.space(text.colon(key_end)?);
        Ok(Some((key..key_end, value)))
    }

    fn member(&self, key: Range<usize>, value: Range<usize>) -> Member<'a> {
        Member {
            start: self.at,
            key: self.text.0.get(key).unwrap_or_default(),
            value: self.text.0.get(value.clone()).unwrap_or_default(),
            span: value,
        }
    }

    fn finish(&self, at: usize) -> Result<(), Stop> {
        let at = self.text.space(at);
        self.text.byte(at).map_or(Ok(()), |_| Err(Stop::At(at)))
    }

    #[cold]
    fn explain(&self, stop: Stop) -> BodyError {
        match stop {
            Stop::TooDeep => BodyError::TooDeep,
            Stop::At(offset) if offset < self.text.0.len() => BodyError::Syntax { offset },
            Stop::At(_) => BodyError::Truncated,
        }
    }
}

impl<'a> Member<'a> {
    /// The key, decoded. `None` where it is no text.
    pub fn key(&self) -> Option<Cow<'a, str>> {
        decode(as_text(self.key))
    }

    /// The value as it is written.
    pub fn value(&self) -> &'a str {
        as_text(self.value)
    }

    /// The value, decoded. `None` where it is not a string, or one that is no text.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        decode(self.value())
    }
}

/// A part of a text that is UTF-8 throughout.
fn as_text(part: &[u8]) -> &str {
    std::str::from_utf8(part).unwrap_or_default()
}

/// Decodes a JSON string that has been checked: only half of a surrogate pair can be wrong with
/// it. `None` for that, and for a value that is not a string.
pub(crate) fn decode(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    // Not as a `String`: the reader of one adds 20 kB to the Wasm file, as told in `config/node.rs`.
    match Node::from_json(raw.as_bytes()) {
        Ok(Node::String(text)) => Some(Cow::Owned(text)),
        _ => None,
    }
}
