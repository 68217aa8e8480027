//! Headers as the ABI passes them: how many, the lengths of each name and value, and then all of them with a zero behind each.

/// A name and a value.
pub type Pair = (String, Vec<u8>);

/// These headers as bytes.
pub fn encode<V: AsRef<[u8]>>(pairs: &[(String, V)]) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or_default().to_le_bytes();
    let text: usize = pairs
        .iter()
        .map(|(name, value)| name.len() + value.as_ref().len() + 10)
        .sum();
    let mut out = Vec::with_capacity(4 + text);
    out.extend_from_slice(&u32::try_from(pairs.len()).unwrap_or_default().to_le_bytes());
    for (name, value) in pairs {
        out.extend_from_slice(&length(name.as_bytes()));
        out.extend_from_slice(&length(value.as_ref()));
    }
    for (name, value) in pairs {
        for bytes in [name.as_bytes(), value.as_ref()] {
            out.extend_from_slice(bytes);
            out.push(0);
        }
    }
    out
}

/// The headers that these bytes hold, as far as they can be read. A name that is not UTF-8 is none: its header is left out.
pub fn decode(bytes: &[u8]) -> Vec<Pair> {
    let mut lengths = bytes;
    let Some(count) = take_length(&mut lengths) else {
        return Vec::new();
    };
    let Some(mut text) = lengths.get(count.saturating_mul(8)..) else {
        return Vec::new();
    };
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let sizes = take_length(&mut lengths).zip(take_length(&mut lengths));
        let pair = sizes.and_then(|(name, value)| {
            Some((take_text(&mut text, name)?, take_text(&mut text, value)?))
        });
        let Some((name, value)) = pair else {
            break;
        };
        if let Ok(name) = std::str::from_utf8(name) {
            pairs.push((name.to_owned(), value.to_vec()));
        }
    }
    pairs
}

fn take_length(bytes: &mut &[u8]) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    usize::try_from(u32::from_le_bytes(*length)).ok()
}

/// So many bytes, and the zero behind them.
fn take_text<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest.get(1..)?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_were_written() {
        let pairs = vec![
            (":method".to_owned(), b"GET".to_vec()),
            ("x-odd".to_owned(), b"\xff\0".to_vec()),
            ("x-empty".to_owned(), Vec::new()),
        ];
        assert_eq!(decode(&encode(&pairs)), pairs);
        assert_eq!(decode(&encode::<Vec<u8>>(&[])), []);
        assert_eq!(
            encode(&[("a".to_owned(), "bc")]),
            b"\x01\0\0\0\x01\0\0\0\x02\0\0\0a\0bc\0"
        );
    }

    #[test]
    fn what_is_cut_is_read_as_far_as_it_goes() {
        let bytes = encode(&[("a".to_owned(), "b"), ("c".to_owned(), "d")]);
        for cut in 0..bytes.len() {
            let read = decode(&bytes[..cut]);
            assert!(read.len() < 2, "{cut}");
        }
        assert_eq!(decode(b"\xff\xff\xff\xff"), []);
        assert_eq!(decode(b"\x01\0\0\0\x01\0\0\0\x01\0\0\0\xff\0b\0"), []);
    }
}
