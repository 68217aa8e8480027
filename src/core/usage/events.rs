//! The data of server-sent events (WHATWG HTML, section 9.2) that come in pieces. `sse` looks at the first event of a held
//! answer; this reads all of them, and holds nothing.

use memchr::memchr2;

use super::json::{Scanner, value_start};

/// The names of fields, as [`State::Name`] has them.
const NO_NAME: u64 = 1;
const DATA: u64 = u64::from_be_bytes(*b"\0\0\0\x01data");
const DATA_AFTER_MARK: u64 = u64::from_be_bytes(*b"\x01\xef\xbb\xbfdata");

/// The end of a line, and a blank one.
const BLANK: [&[u8]; 3] = [b"\n\n", b"\r\n\r\n", b"\r\r"];

/// Finds the data among the lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    state: State,
    /// The last byte was a CR: an LF after it is none of its own.
    after_cr: bool,
    /// A line has ended, so that no byte order mark can come.
    begun: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// The name of a field: a 1, and the bytes so far behind it. All ones where they are more than seven.
    Name(u64),
    /// The space that may stand before data.
    Space,
    Data,
    /// Another field, or a comment.
    Other,
}

impl Default for State {
    fn default() -> Self {
        Self::Name(NO_NAME)
    }
}

impl Lines {
    /// Takes in the next bytes, and hands the data in them to `json`.
    pub fn feed(&mut self, mut bytes: &[u8], json: &mut Scanner) {
        while let Some(first) = bytes.first() {
            let after_cr = std::mem::take(&mut self.after_cr);
            let read = match first {
                b'\n' if after_cr => 1,
                b'\n' | b'\r' => {
                    self.after_cr = *first == b'\r';
                    self.end_line(json);
                    1
                }
                _ => self.read(bytes, *first, json),
            };
            bytes = bytes.get(read..).unwrap_or_default();
        }
    }

    /// Reads on within a line. Returns how many bytes were read.
    fn read(&mut self, bytes: &[u8], first: u8, json: &mut Scanner) -> usize {
        match self.state {
            State::Name(NO_NAME) if bytes.starts_with(b"data:") => {
                self.state = State::Space;
                5
            }
            State::Name(name) => {
                self.state = match name {
                    _ if first != b':' => State::Name(
                        name.checked_mul(256)
                            .map_or(u64::MAX, |name| name | u64::from(first)),
                    ),
                    DATA => State::Space,
                    DATA_AFTER_MARK if !self.begun => State::Space,
                    _ => State::Other,
                };
                1
            }
            State::Space => {
                self.state = State::Data;
                usize::from(first == b' ')
            }
            State::Data | State::Other => {
                let end = memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len());
                let (line, after) = bytes.split_at_checked(end).unwrap_or((bytes, b""));
                let is_data = matches!(self.state, State::Data);
                // Nearly all events of a stream are about something else: those are not read as JSON.
                let is_event = json.is_before() && BLANK.iter().any(|end| after.starts_with(end));
                if is_data && !(is_event && has_no_usage(line)) {
                    json.feed(line);
                }
                line.len()
            }
        }
    }

    fn end_line(&mut self, json: &mut Scanner) {
        match self.state {
            // A blank line ends the event.
            State::Name(NO_NAME) => json.reset(),
            // Where another line of data follows, this stands between them.
            State::Space | State::Data => json.feed(b"\n"),
            State::Name(_) | State::Other => {}
        }
        self.state = State::default();
        self.begun = true;
    }
}

/// Whether the data of an event surely has no `usage` that is an object. A key that may be written with escapes might be one.
fn has_no_usage(data: &[u8]) -> bool {
    let mut rest = data;
    while let Some(at) = memchr2(b'g', b'\\', rest) {
        let (before, found) = rest.split_at_checked(at).unwrap_or((rest, b""));
        let after_key = found.strip_prefix(b"ge\"");
        let may_tell = match after_key.filter(|_| before.ends_with(b"usa")) {
            Some(after) => matches!(value_start(after), None | Some(b'{')),
            None => found.starts_with(b"\\u00"),
        };
        if may_tell {
            return false;
        }
        rest = found.get(1..).unwrap_or_default();
    }
    true
}
