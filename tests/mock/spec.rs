//! The fault grammar: the only place that knows it. Documented in `README.md`.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// What a service does with one request. The default is a good answer at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    /// The status; an error body follows from 400 on. `None`: 200.
    pub status: Option<u16>,
    /// The `retry-after` header, as it is.
    pub retry_after: Option<String>,
    /// The `retry-after-ms` header, as it is.
    pub retry_after_ms: Option<String>,
    /// The `retry-after` header is the date so much later than now.
    pub retry_after_date: Option<Duration>,
    /// Waits for the gate before the headers.
    pub hold: bool,
    /// Wait before the headers.
    pub delay: Duration,
    /// What is done in place of an answer.
    pub instead: Option<Instead>,
    /// Wait between the headers and the first chunk.
    pub first: Duration,
    /// Filler (SSE comments, or spaces in other bodies) before the first chunk.
    pub comments: Option<Comments>,
    /// Into how many pieces the text is split.
    pub chunks: Option<usize>,
    /// Wait between chunks.
    pub gap: Option<Duration>,
    /// Least length of the answer's text in bytes.
    pub size: usize,
    /// Waits for the gate after so many chunks.
    pub gate: Option<usize>,
    /// What happens after so many chunks, in place of the rest.
    pub then: Option<(usize, Then)>,
    /// No body: `content-length: 0`.
    pub empty: bool,
    /// The body is followed by trailers.
    pub trailers: bool,
    /// `content-encoding: gzip`.
    pub gzip: bool,
    /// Only the first so many requests of one `x-test-id` are answered like this.
    pub times: Option<usize>,
    /// `code` of the error that is told.
    pub code: Option<String>,
    /// `type` of the error that is told.
    pub kind: Option<String>,
    /// The message of the error that is told.
    pub message: Option<String>,
    /// What stands in the place of an error, to the byte.
    pub body: Option<String>,
}

/// What is done in place of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Instead {
    /// The connection is reset before any byte of an answer.
    Reset,
    /// Nothing, for ever.
    Hang,
}

/// How many SSE comments come before the first chunk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comments {
    /// So many, then a good stream.
    Some(usize),
    /// Nothing else, ever.
    Forever,
}

/// What happens in the middle of a body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Then {
    /// TCP reset (`RST_STREAM` on HTTP/2).
    Reset,
    /// The connection is closed without the end of the body.
    Cut,
    /// Nothing more is sent, and the body does not end.
    Stall,
    /// Filler for ever.
    Endless,
    /// An error event, then a proper end.
    Error,
    /// A proper end.
    End,
}

impl FromStr for Spec {
    type Err = String;

    /// Parses parts joined by `,` or `;`. The empty text is a good answer.
    /// Errors: one sentence that names the part.
    fn from_str(text: &str) -> Result<Spec, String> {
        let mut spec = Spec::default();
        let parts = text.split([',', ';']).map(str::trim);
        for part in parts.filter(|part| !part.is_empty()) {
            spec.add(part).map_err(|why| format!("{part:?}: {why}"))?;
        }
        Ok(spec)
    }
}

impl Spec {
    /// Whether it is for the request of this number, from 1 on, among those of one `x-test-id`.
    pub fn is_for(&self, number: usize) -> bool {
        self.times.is_none_or(|times| number <= times)
    }

    fn add(&mut self, part: &str) -> Result<(), String> {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (part, None),
        };
        match (name, value) {
            ("reset", None) => self.instead = Some(Instead::Reset),
            ("hang", None) => self.instead = Some(Instead::Hang),
            ("hold", None) => self.hold = true,
            ("empty", None) => self.empty = true,
            ("trailers", None) => self.trailers = true,
            ("gzip", None) => self.gzip = true,
            ("retry-after", Some(value)) => self.retry_after = Some(value.to_owned()),
            ("retry-after-ms", Some(value)) => self.retry_after_ms = Some(value.to_owned()),
            ("retry-after-date", Some(value)) => {
                self.retry_after_date = Some(Duration::from_secs(number(value)?));
            }
            ("body", Some(value)) => self.body = Some(value.to_owned()),
            ("code", Some(value)) => self.code = Some(value.to_owned()),
            ("type", Some(value)) => self.kind = Some(value.to_owned()),
            ("message", Some(value)) => self.message = Some(value.to_owned()),
            ("times", Some(value)) => self.times = Some(number(value)?),
            ("delay", Some(value)) => self.delay = millis(value)?,
            ("first", Some(value)) => self.first = millis(value)?,
            ("gap", Some(value)) => self.gap = Some(millis(value)?),
            ("chunks", Some(value)) => self.chunks = Some(number::<usize>(value)?.max(1)),
            ("size", Some(value)) => self.size = number(value)?,
            ("gate", value) => self.gate = Some(value.map_or(Ok(1), number)?),
            ("comments", None) => self.comments = Some(Comments::Forever),
            ("comments", Some(value)) => self.comments = Some(Comments::Some(number(value)?)),
            _ => return self.add_then(name, value),
        }
        Ok(())
    }

    fn add_then(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        let then = match (name, value) {
            ("silence", None) => (0, Then::Stall),
            ("stall", None) => (usize::MAX, Then::Stall),
            ("endless", None) => (usize::MAX, Then::Endless),
            ("error-event", None) => (0, Then::Error),
            ("cut", None) => (1, Then::Cut),
            ("stall", Some(value)) => (number(value)?, Then::Stall),
            ("endless", Some(value)) => (number(value)?, Then::Endless),
            ("error-after", Some(value)) => (number(value)?, Then::Error),
            ("cut", Some(value)) => (number(value)?, Then::Cut),
            ("reset-after", Some(value)) => (number(value)?, Then::Reset),
            ("end-after", Some(value)) => (number(value)?, Then::End),
            (_, None) => return self.add_status(name),
            _ => return Err("unknown part".to_owned()),
        };
        match self.then.replace(then) {
            None => Ok(()),
            Some(_) => Err("a second way to end the body".to_owned()),
        }
    }

    fn add_status(&mut self, name: &str) -> Result<(), String> {
        let status = name.parse().map_err(|_| "unknown part".to_owned())?;
        if !(200..=599).contains(&status) {
            return Err("a status is from 200 to 599".to_owned());
        }
        self.status = Some(status);
        Ok(())
    }
}

fn millis(value: &str) -> Result<Duration, String> {
    number(value).map(Duration::from_millis)
}

fn number<T: FromStr<Err: Display>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error| format!("{error}"))
}
