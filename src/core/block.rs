//! Finds what ends a stretch of JSON, many bytes at once.

/// How many bytes of a string can be passed over: up to its quote, an escape or a control character.
#[inline]
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    let (blocks, tail) = bytes.as_chunks();
    for (index, block) in blocks.iter().enumerate() {
        if let Some(at) = first_end(block) {
            return index * BLOCK + at;
        }
    }
    let rest = tail.iter().take_while(|byte| !is_end(**byte)).count();
    blocks.len() * BLOCK + rest
}

/// How many bytes outside of strings can be passed over, in blocks: up to a quote or a bracket. Where a block may have
/// one, its bytes are to be looked at.
pub(super) fn dull_len(bytes: &[u8]) -> usize {
    let (words, _) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quotes = zeros(word ^ (0x22 * EACH));
        // These bits make 0x7f of all four brackets, and of `Y`, `y`, `_` and DEL, which no JSON has outside of strings.
        let brackets = zeros((word | (0x26 * EACH)) ^ (0x7f * EACH));
        let ends = quotes | brackets;
        if ends != 0 {
            return index * 8 + ends.trailing_zeros() as usize / 8;
        }
    }
    words.len() * 8
}

fn is_end(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | ..0x20)
}

/// How many bytes are tested at once.
#[cfg(target_feature = "simd128")]
const BLOCK: usize = 16;

/// The offset of the first byte that [`is_end`].
#[cfg(target_feature = "simd128")]
#[inline]
fn first_end(block: &[u8; BLOCK]) -> Option<usize> {
    use core::arch::wasm32::{
        u8x16_bitmask, u8x16_eq, u8x16_le, u8x16_splat, u64x2, v128_or, v128_xor,
    };
    let [low, high] = block.as_chunks().0 else {
        return None;
    };
    let bytes = u64x2(u64::from_le_bytes(*low), u64::from_le_bytes(*high));
    // Flipping bit 1 makes the quote (0x22) 0x20, and keeps the control characters below that.
    let quote_or_control = u8x16_le(v128_xor(bytes, u8x16_splat(0x02)), u8x16_splat(0x20));
    let backslash = u8x16_eq(bytes, u8x16_splat(b'\\'));
    match u8x16_bitmask(v128_or(quote_or_control, backslash)) {
        0 => None,
        ends => Some(ends.trailing_zeros() as usize),
    }
}

/// How many bytes are tested at once.
#[cfg(not(target_feature = "simd128"))]
const BLOCK: usize = 8;

/// The offset of the first byte that [`is_end`].
#[cfg(not(target_feature = "simd128"))]
#[inline]
fn first_end(block: &[u8; BLOCK]) -> Option<usize> {
    let word = u64::from_le_bytes(*block);
    // As above. The lowest bit that is set is the top bit of the first byte that ends; bits above it mean nothing,
    // as the subtractions borrow across bytes.
    let quote_or_control = (word ^ (0x02 * EACH)).wrapping_sub(0x21 * EACH);
    let backslash = (word ^ (0x5c * EACH)).wrapping_sub(EACH);
    match (quote_or_control | backslash) & !word & (0x80 * EACH) {
        0 => None,
        ends => Some(ends.trailing_zeros() as usize / 8),
    }
}

/// A one in each byte.
const EACH: u64 = 0x0101_0101_0101_0101;

/// The lowest bit that is set is the top bit of the first byte that is zero. Bits above it mean nothing.
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(EACH) & !word & (0x80 * EACH)
}
