//! Changes to a body: few bytes of it, the others stay.

use std::ops::Range;

/// One or two changes to a body. All bytes outside of them stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    pub(super) first: Splice,
    /// Begins where the first one ends, or later.
    pub(super) second: Option<Splice>,
}

/// The bytes of `span` become `text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Splice {
    /// Offsets into the body that was read. Empty where something is added.
    pub span: Range<usize>,
    /// What stands there afterwards. Empty where something is taken out.
    pub text: Vec<u8>,
}

impl Edit {
    /// The body with the changes made. `body` must be the one that was read.
    pub fn apply(&self, body: &[u8]) -> Vec<u8> {
        let mut after = Vec::with_capacity(self.len_after(body.len()));
        let end = self.write_prefix(body, &mut after);
        after.extend_from_slice(body.get(end..).unwrap_or_default());
        after
    }

    /// The length of the start of `body` that holds all changes, and the bytes that stand in its
    /// place afterwards. `body` must be the one that was read.
    pub fn prefix(&self, body: &[u8]) -> (usize, Vec<u8>) {
        let mut start = Vec::new();
        (self.write_prefix(body, &mut start), start)
    }

    /// The length in bytes that a body of `body_len` bytes has afterwards.
    pub fn len_after(&self, body_len: usize) -> usize {
        self.splices().fold(body_len, |len, splice| {
            len.saturating_sub(splice.span.len()) + splice.text.len()
        })
    }

    fn write_prefix(&self, body: &[u8], out: &mut Vec<u8>) -> usize {
        self.splices().fold(0, |from, splice| {
            out.extend_from_slice(body.get(from..splice.span.start).unwrap_or_default());
            out.extend_from_slice(&splice.text);
            splice.span.end
        })
    }

    fn splices(&self) -> impl Iterator<Item = &Splice> {
        std::iter::once(&self.first).chain(&self.second)
    }
}
