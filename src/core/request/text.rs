//! The small pieces of JSON text: white space, strings, numbers, literals.
//!
//! Offsets go in and come out by value, so that they stay in registers. One that is out of range
//! is the end of the text.

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
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 1),
            Some(b'u') => (0..4).try_fold(at + 1, |at, _| {
                self.one(at, |byte| byte.is_ascii_hexdigit())
            }),
            _ => Err(at),
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

/// How many bytes of a string can be passed over: up to its end, an escape or a control character.
#[inline]
pub(in crate::core) fn plain_len(bytes: &[u8]) -> usize {
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let ends = ends(u64::from_le_bytes(*word));
        if ends != 0 {
            return index * 8 + ends.trailing_zeros() as usize / 8;
        }
    }
    words.len() * 8 + count(tail, |byte| !is_end(byte))
}

fn is_end(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | ..0x20)
}

/// Tests eight bytes at once: the lowest bit that is set is the top bit of the first byte that
/// [`is_end`]. Bits above it mean nothing, as the subtractions borrow across bytes.
#[inline]
fn ends(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // Flipping bit 1 makes the quote (0x22) 0x20, and keeps the control characters below that.
    let quote_or_control = (word ^ (0x02 * EACH)).wrapping_sub(0x21 * EACH);
    let backslash = (word ^ (0x5c * EACH)).wrapping_sub(EACH);
    (quote_or_control | backslash) & !word & (0x80 * EACH)
}
