//! Server-sent event streams (WHATWG HTML, section 9.2): the first event, and events that are errors.

use std::borrow::Cow;

use memchr::memchr2;

use super::provider_error::ProviderError;
use super::request::top_level_error;

/// What the first bytes of a stream hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstEvent {
    /// Comments and blank lines only. The first `skip` bytes are whole lines of that kind.
    OnlyComments {
        /// Bytes that need not be read again.
        skip: usize,
    },
    /// An event has begun, and its end is not here yet.
    Begun,
    /// `event: error`, or data with a top-level `error`; and what it says, which may be nothing.
    Error(ProviderError),
    /// Any other event, or no event stream at all.
    Good,
}

/// Reads the first event of `bytes`; `end` says that no more bytes follow.
///
/// An event that is cut off by the end counts as a whole one: what it says is all there is. So a
/// caller that does not wait any longer for the end of an event that has [`Begun`](FirstEvent::Begun)
/// asks again, with `end`: then it is either an error or a good one.
#[must_use]
pub fn first_event(bytes: &[u8], end: bool) -> FirstEvent {
    let mut rest = without_mark(bytes);
    let mut event = Event::default();
    let mut skip = bytes.len() - rest.len();
    loop {
        let Some((line, after)) = split_line(rest, end) else {
            return unfinished(rest, event.begun, skip);
        };
        match field(line) {
            Field::Blank if event.begun => return event.verdict(),
            Field::Other if !event.begun => return FirstEvent::Good,
            field => event.add(field),
        }
        if !event.begun {
            skip += rest.len() - after.len();
        }
        rest = after;
        if end && rest.is_empty() {
            return if event.begun {
                event.verdict()
            } else {
                FirstEvent::OnlyComments { skip }
            };
        }
    }
}

/// What the first event of a whole stream says that is an error; `None` where none is. An event that
/// is cut off by the end counts as a whole one.
#[must_use]
pub fn any_error(bytes: &[u8]) -> Option<ProviderError> {
    let mut rest = without_mark(bytes);
    let mut event = Event::default();
    while !rest.is_empty() {
        let (line, after) = split_line(rest, true)?;
        match field(line) {
            Field::Blank => {
                let error = std::mem::take(&mut event).error();
                if error.is_some() {
                    return error;
                }
            }
            field => event.add(field),
        }
        rest = after;
    }
    event.error()
}

fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// An event while it is read.
#[derive(Default)]
struct Event<'a> {
    begun: bool,
    is_named_error: bool,
    data: Option<Cow<'a, [u8]>>,
}

impl<'a> Event<'a> {
    fn add(&mut self, field: Field<'a>) {
        match field {
            Field::Event(name) => self.is_named_error = name == b"error",
            Field::Data(line) => self.add_data(line),
            Field::IdOrRetry => {}
            Field::Blank | Field::Comment | Field::Other => return,
        }
        self.begun = true;
    }

    fn add_data(&mut self, line: &'a [u8]) {
        self.data = Some(match self.data.take() {
            None => Cow::Borrowed(line),
            Some(data) => {
                let mut data = data.into_owned();
                data.push(b'\n');
                data.extend_from_slice(line);
                Cow::Owned(data)
            }
        });
    }

    /// What the event says, where it is an error.
    fn error(&self) -> Option<ProviderError> {
        let data = self.data.as_deref().unwrap_or_default();
        let is_error = self.is_named_error || top_level_error(data);
        is_error.then(|| ProviderError::read(data).unwrap_or_default())
    }

    fn verdict(&self) -> FirstEvent {
        self.error().map_or(FirstEvent::Good, FirstEvent::Error)
    }
}

enum Field<'a> {
    Blank,
    Comment,
    Event(&'a [u8]),
    Data(&'a [u8]),
    IdOrRetry,
    /// To be ignored in an event stream. What begins like this is none.
    Other,
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
        b"id" | b"retry" => Field::IdOrRetry,
        _ => Field::Other,
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::*;

    const BAD: &str = r#"{"error":{"type":"overloaded_error"}}"#;

    fn read(text: &str) -> FirstEvent {
        first_event(text.as_bytes(), false)
    }

    fn overloaded() -> ProviderError {
        ProviderError::read(BAD.as_bytes()).unwrap()
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
            "event: error\n",
            "event: error\r\ndata: {}\r\n",
            "data: {}\nnonsense: 1\n",
        ] {
            assert_eq!(read(text), FirstEvent::Begun, "{text:?}");
        }
    }

    #[test]
    fn an_error_is_found_by_name_or_in_the_data() {
        for text in [
            format!("data: {BAD}\n\n"),
            format!("data:{BAD}\r\r"),
            format!("\u{feff}: hi\r\n\r\nid: 7\r\ndata: {BAD}\r\n\r\n"),
            "data: {\"error\":\ndata: {\"type\":\"overloaded_error\"}}\n\n".to_owned(),
            format!("event: error\ndata: {BAD}\n\n"),
            format!("data: {BAD}\nevent:error\n\n"),
            format!("event: error\nnonsense: 1\n: hi\ndata: {BAD}\n\n"),
            "event: error\ndata: {\"type\":\"overloaded_error\",\"message\":\"\"}\n\n".to_owned(),
        ] {
            assert_eq!(read(&text), FirstEvent::Error(overloaded()), "{text:?}");
        }
    }

    #[test]
    fn an_error_may_say_nothing() {
        for text in [
            "event: error\n\n",
            "event:error\r\n\r\n",
            "event: error\ndata: oops\n\n",
            "event: error\ndata: {\"error\":null}\n\n",
            "data: {\"error\":true}\n\n",
        ] {
            let nothing = ProviderError::default();
            assert_eq!(read(text), FirstEvent::Error(nothing), "{text:?}");
        }
    }

    #[test]
    fn an_event_that_is_cut_off_counts_as_it_is() {
        let error = FirstEvent::Error(overloaded());
        let nothing = FirstEvent::Error(ProviderError::default());
        let table = [
            (format!("data: {BAD}"), error.clone()),
            (format!("event: error\ndata: {BAD},"), error),
            ("event: error".to_owned(), nothing.clone()),
            ("event: error\ndata: {\"error\":{\"ty".to_owned(), nothing),
            ("event: erro".to_owned(), FirstEvent::Good),
            ("data: {\"error\":{}".to_owned(), FirstEvent::Good),
        ];
        for (text, expected) in table {
            assert_eq!(read(&text), FirstEvent::Begun, "{text:?}");
            assert_eq!(first_event(text.as_bytes(), true), expected, "{text:?}");
        }
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
            "event: error\nevent: done\ndata: {}\n\n",
            "nonsense: 1\nevent: error\n\n",
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
        assert_eq!(read(&text), FirstEvent::Error(overloaded()));
    }

    #[test]
    fn a_stream_that_ends_in_comments_has_no_event() {
        assert_eq!(
            first_event(b": a\n\n", true),
            FirstEvent::OnlyComments { skip: 5 }
        );
        assert_eq!(first_event(b"", true), FirstEvent::OnlyComments { skip: 0 });
    }

    #[test]
    fn an_error_is_found_anywhere_in_a_whole_stream() {
        let good = "event: delta\ndata: {\"choices\":[]}\n\n: hi\n\n";
        for text in [
            format!("{good}data: {BAD}\n\n{good}"),
            format!("{good}event: error\r\ndata: {BAD}\r\n\r\ndata: [DONE]\r\n\r\n"),
            format!("{good}data: {BAD}"),
            format!("\u{feff}data: {BAD}\n\nevent: error\n\n"),
            format!("{good}{good}data: {{\"error\":\ndata: {}\n\n", &BAD[9..]),
        ] {
            assert_eq!(any_error(text.as_bytes()), Some(overloaded()), "{text:?}");
        }
        let text = format!("{good}event: error");
        assert_eq!(any_error(text.as_bytes()), Some(ProviderError::default()));
    }

    #[test]
    fn a_stream_without_an_error_has_none() {
        for text in [
            "",
            "\n\n\n",
            ": a\n\n",
            "event: error\nevent: done\ndata: {}\n\n",
            "data: {\"choices\":[{\"error\":1}]}\n\ndata: [DONE]\n\n",
            "data: {\"error\":null}\n\ndata: {\"error\":\n\ndata: 1}\n\n",
            "{\"error\":{}}",
        ] {
            assert_eq!(any_error(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_stream_holds_an_error_where_one_of_its_events_is_one(events in vec(event(), 0..6)) {
            let alone = events.iter().find_map(|event| match first_event(event.as_bytes(), true) {
                FirstEvent::Error(error) => Some(error),
                _ => None,
            });
            prop_assert_eq!(any_error(events.concat().as_bytes()), alone);
        }

        #[test]
        fn what_is_decided_early_stays_decided(events in vec(event(), 1..3), at in any::<Index>()) {
            let text = events.concat();
            let cut = &text.as_bytes()[..at.index(text.len() + 1)];
            let early = first_event(cut, false);
            if matches!(early, FirstEvent::Good | FirstEvent::Error(_)) {
                prop_assert_eq!(early, first_event(text.as_bytes(), true));
            }
        }
    }

    /// An event with its blank line, of lines that matter.
    fn event() -> impl Strategy<Value = String> {
        let line = select(
            &[
                "event: error",
                "event:message",
                ": hi",
                "id: 1",
                "data: {\"error\":",
                "data: {\"error\":{\"code\":429}}",
                "data: {\"code\":\"x\",\"message\":\"m\"}",
                "data:{}}",
                "data",
            ][..],
        );
        let end = select(&["\n", "\r\n", "\r"][..]);
        (vec(line, 0..4), end).prop_map(|(lines, end)| {
            let lines = lines.iter().map(|line| format!("{line}{end}"));
            lines.collect::<String>() + end
        })
    }
}
