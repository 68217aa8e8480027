//! Checks and skips one JSON value with all that is in it, without recursion.

use super::text::Text;

/// How many objects and arrays may be open at once; the top-level object is the first. A multiple
/// of 64.
pub const MAX_DEPTH: usize = 512;

/// Why a value is none.
#[derive(Clone, Copy)]
pub(super) enum Stop {
    /// The byte at this offset does not fit; the text ends too early where there is none.
    At(usize),
    TooDeep,
}

/// The offset behind a value that is a member of the top-level object.
pub(super) fn skip_value(text: Text<'_>, at: usize) -> Result<usize, Stop> {
    let mut open = Open::top_level();
    let mut next = Next::Value(at);
    loop {
        next = match next {
            Next::Key(at) => Next::Value(text.colon(text.string(text.space(at))?)?),
            Next::Value(at) => begin(text, text.space(at), &mut open)?,
            Next::Behind(at) if open.depth == 1 => return Ok(at),
            Next::Behind(at) => go_on(text, text.space(at), &mut open)?,
        };
    }
}

/// What comes next, and where.
enum Next {
    Key(usize),
    Value(usize),
    /// What stands behind a value.
    Behind(usize),
}

#[inline]
fn begin(text: Text<'_>, at: usize, open: &mut Open) -> Result<Next, Stop> {
    let end = match text.byte(at) {
        Some(b'"') => text.string(at)?,
        Some(b'{') => return begin_container(text, at, open, Container::Object),
        Some(b'[') => return begin_container(text, at, open, Container::Array),
        Some(b'-' | b'0'..=b'9') => text.number(at)?,
        Some(b't') => text.literal(at, b"true")?,
        Some(b'f') => text.literal(at, b"false")?,
        Some(b'n') => text.literal(at, b"null")?,
        _ => return Err(Stop::At(at)),
    };
    Ok(Next::Behind(end))
}

#[inline]
fn begin_container(
    text: Text<'_>,
    at: usize,
    open: &mut Open,
    container: Container,
) -> Result<Next, Stop> {
    open.push(container)?;
    let at = text.space(at + 1);
    if text.byte(at) == Some(container.closing()) {
        open.pop();
        return Ok(Next::Behind(at + 1));
    }
    Ok(container.next(at))
}

#[inline]
fn go_on(text: Text<'_>, at: usize, open: &mut Open) -> Result<Next, Stop> {
    let container = open.innermost();
    match text.byte(at) {
        Some(b',') => Ok(container.next(at + 1)),
        Some(byte) if byte == container.closing() => {
            open.pop();
            Ok(Next::Behind(at + 1))
        }
        _ => Err(Stop::At(at)),
    }
}

impl From<usize> for Stop {
    fn from(at: usize) -> Self {
        Self::At(at)
    }
}

#[derive(Clone, Copy)]
enum Container {
    Array,
    Object,
}

impl Container {
    #[inline]
    fn closing(self) -> u8 {
        match self {
            Self::Array => b']',
            Self::Object => b'}',
        }
    }

    /// What follows its opening bracket or a comma.
    #[inline]
    fn next(self, at: usize) -> Next {
        match self {
            Self::Array => Next::Value(at),
            Self::Object => Next::Key(at),
        }
    }
}

/// The containers that are open, one bit each: set for an object.
struct Open {
    depth: usize,
    objects: [u64; MAX_DEPTH / 64],
}

impl Open {
    fn top_level() -> Self {
        // Its own bit is never asked for: `skip_value` returns before.
        let objects = [0; MAX_DEPTH / 64];
        Self { depth: 1, objects }
    }

    #[inline]
    fn push(&mut self, container: Container) -> Result<(), Stop> {
        let word = self.objects.get_mut(self.depth / 64);
        let word = word.ok_or(Stop::TooDeep)?;
        let bit = 1 << (self.depth % 64);
        match container {
            Container::Array => *word &= !bit,
            Container::Object => *word |= bit,
        }
        self.depth += 1;
        Ok(())
    }

    #[inline]
    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    #[inline]
    fn innermost(&self) -> Container {
        let level = self.depth.saturating_sub(1);
        let word = self.objects.get(level / 64).copied().unwrap_or_default();
        match word >> (level % 64) & 1 {
            0 => Container::Array,
            _ => Container::Object,
        }
    }
}
