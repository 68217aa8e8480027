//! The first event of a server-sent event stream (WHATWG HTML, section 9.2).

use memchr::memchr2;

use super::request::top_level_error;

/// What the first bytes of a stream hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstEvent {
    /// Comments and blank lines only. The first `skip` bytes are whole lines of that kind.
    OnlyComments {
        /// Bytes that need not be read again.
        skip: usize,
    },
    /// An event has begun, and its end is not here yet.
    Begun,
    /// `event: error`, or data with a top-level `error`.
    Error,
    /// Any other event, or no event stream at all.
    Good,
}

/// Reads the first event of `bytes`; `end` says that no more bytes follow.
///
/// An event that is cut off by the end counts as a whole one: what it says is all there is.
#[must_use]
pub fn first_event(bytes: &[u8], end: bool) -> FirstEvent {
    let mut rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut data: Option<Vec<u8>> = None;
    let mut begun = false;
    let mut skip = bytes.len() - rest.len();
    loop {
        let Some((line, after)) = split_line(rest, end) else {
            return unfinished(rest, begun, skip);
        };
        match field(line) {
            Field::Blank if begun => return verdict(data.as_deref()),
            Field::Blank | Field::Comment => {}
            Field::Event(b"error") => return FirstEvent::Error,
            Field::Data(text) => {
                begun = true;
                append_line(data.get_or_insert_default(), text);
            }
            Field::Event(_) | Field::Other => begun = true,
            Field::NoEventStream => return FirstEvent::Good,
        }
        if !begun {
            skip += rest.len() - after.len();
        }
        rest = after;
        if end && rest.is_empty() {
            return if begun {
                verdict(data.as_deref())
            } else {
                FirstEvent::OnlyComments { skip }
            };
        }
    }
}

enum Field<'a> {
    Blank,
    Comment,
    Event(&'a [u8]),
    Data(&'a [u8]),
    Other,
    NoEventStream,
}

fn field(line: &[u8]) -> Field<'_> {
    let (name, value) = match memchr::memchr(b':', line) {
        Some(at) => line.split_at_checked(at).unwrap_or((line, b"")),
        None => (line, &b""[..]),
    };
    let value = value.strip_prefix(b":").unwrap_or(value);
    let value = value.strip_prefix(b" ").unwrap_or(value);
    match name {
        b"" if line.is_empty() => Field::Blank,
        b"" => Field::Comment,
        b"event" => Field::Event(value),
        b"data" => Field::Data(value),
        b"id" | b"retry" => Field::Other,
        _ => Field::NoEventStream,
    }
}

/// A line and what follows it. `None` where its end is not here yet: a line ends in LF, CR or CRLF.
/// Where a CRLF is cut in two, its LF looks like one more blank line, which does no harm.
fn split_line(bytes: &[u8], end: bool) -> Option<(&[u8], &[u8])> {
    let Some(at) = memchr2(b'\n', b'\r', bytes) else {
        return end.then_some((bytes, &[]));
    };
    let (line, rest) = bytes.split_at_checked(at)?;
    match rest {
        [b'\r', b'\n', after @ ..] => Some((line, after)),
        [_, after @ ..] => Some((line, after)),
        [] => None,
    }
}

fn unfinished(rest: &[u8], begun: bool, skip: usize) -> FirstEvent {
    match rest.first() {
        _ if begun => FirstEvent::Begun,
        None | Some(b':') => FirstEvent::OnlyComments { skip },
        Some(_) if could_be_a_field(rest) => FirstEvent::Begun,
        Some(_) => FirstEvent::Good,
    }
}

/// Whether a line without its end may become a field of an event stream.
fn could_be_a_field(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    let whole = name.len() < line.len();
    [&b"event"[..], b"data", b"id", b"retry"]
        .iter()
        .any(|field| {
            if whole {
                *field == name
            } else {
                field.starts_with(name)
            }
        })
}

fn append_line(data: &mut Vec<u8>, line: &[u8]) {
    if !data.is_empty() {
        data.push(b'\n');
    }
    data.extend_from_slice(line);
}

fn verdict(data: Option<&[u8]>) -> FirstEvent {
    match data {
        Some(data) if top_level_error(data) => FirstEvent::Error,
        _ => FirstEvent::Good,
    }
}

#[cfg(test)]
mod tests {
    use super::{FirstEvent, first_event};

    const BAD: &str = r#"{"error":{"message":"overloaded"}}"#;

    fn read(text: &str) -> FirstEvent {
        first_event(text.as_bytes(), false)
    }

    #[test]
    fn comments_and_blank_lines_are_no_first_packet() {
        for (text, skip) in [
            ("", 0),
            (": a\n", 4),
            (": a\n\n\r\n", 7),
            (": a\n: half", 4),
            (": a\r", 4),
            ("\n", 1),
            ("\r", 1),
        ] {
            assert_eq!(read(text), FirstEvent::OnlyComments { skip }, "{text:?}");
        }
    }

    #[test]
    fn an_event_without_its_end_has_begun() {
        for text in [
            "d",
            "data",
            "data: {",
            "event: er",
            ": a\nid: 1\n",
            "data: {}\n",
            "retry: 3",
        ] {
            assert_eq!(read(text), FirstEvent::Begun, "{text:?}");
        }
    }

    #[test]
    fn an_error_is_found_by_name_or_in_the_data() {
        for text in [
            "event: error\n".to_owned(),
            "event:error\r\n".to_owned(),
            format!("data: {BAD}\n\n"),
            format!("data:{BAD}\r\r"),
            format!("\u{feff}: hi\r\n\r\nid: 7\r\ndata: {BAD}\r\n\r\n"),
            "data: {\"error\":\ndata: \"split\"}\n\n".to_owned(),
        ] {
            assert_eq!(read(&text), FirstEvent::Error, "{text:?}");
        }
        assert_eq!(
            first_event(format!("data: {BAD}").as_bytes(), true),
            FirstEvent::Error
        );
        assert_eq!(first_event(b"event: error", true), FirstEvent::Error);
    }

    #[test]
    fn any_other_event_is_good() {
        for text in [
            "data: {\"choices\":[]}\n\n",
            "data: {\"error\":null}\n\n",
            "data: {\"choices\":[{\"error\":1}]}\n\n",
            "data: [DONE]\n\n",
            "event: message_start\ndata: {}\n\n",
            "event: errors\ndata: {}\n\n",
            "{\"id\":1}",
            "\u{1f}\u{8b}",
            "database",
        ] {
            assert_eq!(read(text), FirstEvent::Good, "{text:?}");
        }
    }

    #[test]
    fn an_event_is_found_at_every_way_of_cutting_the_stream() {
        let text = format!(": hi\r\n\r\nevent: message\r\ndata: {BAD}\r\n\r\n");
        for cut in 0..text.len() - 3 {
            let begun = matches!(
                read(&text[..cut]),
                FirstEvent::OnlyComments { .. } | FirstEvent::Begun
            );
            assert!(begun, "cut at {cut}");
        }
        assert_eq!(read(&text), FirstEvent::Error);
    }

    #[test]
    fn a_stream_that_ends_in_comments_has_no_event() {
        assert_eq!(
            first_event(b": a\n\n", true),
            FirstEvent::OnlyComments { skip: 5 }
        );
        assert_eq!(first_event(b"", true), FirstEvent::OnlyComments { skip: 0 });
    }
}
