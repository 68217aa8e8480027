//! The small pieces of JSON text: white space, strings, numbers, literals.
//!
//! Offsets go in and come out by value, so that they stay in registers. One that is out of range
//! is the end of the text.

use crate::core::block::plain_len;

/// JSON text. It must be UTF-8; only its ASCII is looked at here.
#[derive(Clone, Copy)]
pub(super) struct Text<'a>(pub &'a [u8]);

/// The offset behind what was read, or that of the byte that does not fit.
pub(super) type Step = Result<usize, usize>;

impl<'a> Text<'a> {
    #[inline]
    pub fn byte(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    /// Behind white space, of which there may be none.
    #[inline]
    pub fn space(self, at: usize) -> usize {
        // Most of the time there is none.
        if self.byte(at) > Some(b' ') {
            return at;
        }
        at + count(self.rest(at), |byte| {
            matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
        })
    }

    /// Behind one byte.
    #[inline]
    fn one(self, at: usize, fits: impl Fn(u8) -> bool) -> Step {
        match self.byte(at) {
            Some(byte) if fits(byte) => Ok(at + 1),
            _ => Err(at),
        }
    }

    /// Behind white space and the colon that follows a key.
    #[inline]
    pub fn colon(self, at: usize) -> Step {
        self.one(self.space(at), |byte| byte == b':')
    }

    #[inline]
    pub fn string(self, at: usize) -> Step {
        let mut at = self.one(at, |byte| byte == b'"')?;
        loop {
            at += plain_len(self.rest(at));
            match self.byte(at) {
                Some(b'"') => return Ok(at + 1),
                Some(b'\\') => at = self.escape(at + 1)?,
                _ => return Err(at),
            }
        }
    }

    #[inline]
    fn escape(self, at: usize) -> Step {
        match self.byte(at) {
            Some(b'u') => self.hex(at + 1),
            Some(byte) if is_escape(byte) => Ok(at + 1),
            _ => Err(at),
        }
    }

    /// Behind four hex digits.
    #[inline]
    fn hex(self, at: usize) -> Step {
        let rest = self.rest(at);
        match rest.first_chunk::<4>() {
            Some(digits) if are_hex(digits) => Ok(at + 4),
            _ => Err(at + count(rest, |byte| byte.is_ascii_hexdigit())),
        }
    }

    #[inline]
    pub fn number(self, at: usize) -> Step {
        let (Ok(at) | Err(at)) = self.one(at, |byte| byte == b'-');
        let at = match self.byte(at) {
            Some(b'0') => at + 1,
            _ => self.digits(at)?,
        };
        let at = match self.byte(at) {
            Some(b'.') => self.digits(at + 1)?,
            _ => at,
        };
        match self.byte(at) {
            Some(b'e' | b'E') => {
                let (Ok(at) | Err(at)) = self.one(at + 1, |byte| matches!(byte, b'+' | b'-'));
                self.digits(at)
            }
            _ => Ok(at),
        }
    }

    #[inline]
    fn digits(self, at: usize) -> Step {
        match count(self.rest(at), |byte| byte.is_ascii_digit()) {
            0 => Err(at),
            digits => Ok(at + digits),
        }
    }

    #[inline]
    pub fn literal<const N: usize>(self, at: usize, word: &[u8; N]) -> Step {
        if self.rest(at).first_chunk() == Some(word) {
            return Ok(at + N);
        }
        let pairs = self.rest(at).iter().zip(word);
        Err(at + pairs.take_while(|(byte, letter)| byte == letter).count())
    }

    #[inline]
    fn rest(self, at: usize) -> &'a [u8] {
        self.0.get(at..).unwrap_or_default()
    }
}

/// How many bytes at the start fit.
#[inline]
fn count(bytes: &[u8], fits: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|byte| fits(**byte)).count()
}

/// Whether it makes an escape, behind a backslash. Two ranges: each becomes a test of a bit, and not a branch that the CPU
/// cannot predict.
#[inline]
fn is_escape(byte: u8) -> bool {
    matches!(byte, b'"' | b'/') | matches!(byte, b'\\' | b'b' | b'f' | b'n' | b'r' | b't')
}

/// Looks at all of them, so that there is one branch.
#[inline]
fn are_hex(digits: &[u8; 4]) -> bool {
    let each = digits.iter().map(u8::is_ascii_hexdigit);
    each.fold(true, |all, fits| all & fits)
}
