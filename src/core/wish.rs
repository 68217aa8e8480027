//! What a request asks of the filter, by header. None of these headers goes on to a service.

use std::time::Duration;

use super::config::{ClientControls, Deliver};
use super::fit::{Header, OFF_HEADER};

const TIMEOUT_HEADER: &str = "x-ai-fallback-timeout-ms";
const DELIVER_HEADER: &str = "x-ai-fallback-deliver";

/// What a request asks for. Nothing, where the configuration does not allow it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    /// No fallback.
    pub off: bool,
    /// A total timeout, which counts where it is the shorter one.
    pub timeout: Option<Duration>,
    /// How much of the answer is to be held.
    pub deliver: Option<Deliver>,
}

/// A header that says nothing that could be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadWish {
    /// Its name.
    pub header: &'static str,
    /// What it may say.
    pub expected: &'static str,
}

impl Wish {
    /// Reads the headers that are allowed.
    ///
    /// # Errors
    /// The first that cannot be understood: to go on as if it were not there is not what the client asked for.
    pub fn read(allowed: ClientControls, headers: &[Header]) -> Result<Self, BadWish> {
        let mut wish = Self::default();
        if allowed == ClientControls::default() {
            return Ok(wish);
        }
        for (name, value) in headers {
            match name.as_str() {
                OFF_HEADER if allowed.off => {
                    let off = value.eq_ignore_ascii_case(b"off");
                    wish.off = understood(OFF_HEADER, "`off`", off.then_some(true))?;
                }
                TIMEOUT_HEADER if allowed.timeout => {
                    let expected = "a number of milliseconds from 1 to 4294967295";
                    wish.timeout = Some(understood(TIMEOUT_HEADER, expected, millis(value))?);
                }
                DELIVER_HEADER if allowed.deliver => {
                    let expected = "`first_packet` or `complete`";
                    wish.deliver = Some(understood(DELIVER_HEADER, expected, deliver(value))?);
                }
                _ => {}
            }
        }
        Ok(wish)
    }
}

fn understood<T>(
    header: &'static str,
    expected: &'static str,
    value: Option<T>,
) -> Result<T, BadWish> {
    value.ok_or(BadWish { header, expected })
}

fn millis(value: &[u8]) -> Option<Duration> {
    let millis: u32 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (millis > 0).then(|| Duration::from_millis(millis.into()))
}

fn deliver(value: &[u8]) -> Option<Deliver> {
    match value {
        b"first_packet" => Some(Deliver::FirstPacket),
        b"complete" => Some(Deliver::Complete),
        _ => None,
    }
}
