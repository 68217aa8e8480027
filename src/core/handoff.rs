//! What the request filter tells the attempt filters of a request, in `dispatch: router`.
//!
//! They run in different VMs and share nothing but Envoy's filter state, which holds bytes.

use std::time::Duration;

use super::bytes::{put, put_number, put_u64, take, take_number, take_text, take_u64};
use super::config::Config;
use super::fit::Header;
use super::plan::Plan;

/// The layout of the bytes. While a new file takes the place of an old one, both may be in use: what the other one wrote
/// is not read.
const FORMAT: usize = 2;

/// The plan of a request, and what the attempt filters have to know besides.
#[derive(Debug, Clone, PartialEq)]
pub struct Handoff {
    /// The plan.
    pub plan: Plan,
    /// The attempt filters judge the answers. Else they make the request fit its service, and that is all.
    pub judges: bool,
    /// When the total timeout is used up, since the Unix epoch: the VMs share no other clock.
    pub deadline: Option<Duration>,
    /// How often the request came through, with this time, where that is counted.
    pub hops: Option<u32>,
    /// The answer is to be read, so that it must not be compressed.
    pub uncompressed: bool,
    /// The request filter is to be told of a good answer, too, how far the request has come.
    pub tells_all: bool,
}

/// The request headers as they came to the first attempt, as bytes: what a later one is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedHeaders(Vec<u8>);

impl PackedHeaders {
    /// These headers as bytes.
    #[must_use]
    pub fn pack(headers: &[Header]) -> Self {
        let mut out = Vec::with_capacity(1024);
        for (name, value) in headers {
            put(&mut out, name.as_bytes());
            put(&mut out, value);
        }
        Self(out)
    }

    /// Bytes that were packed before.
    #[must_use]
    pub fn read(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The headers. `None` where the bytes are none.
    #[must_use]
    pub fn unpack(&self) -> Option<Vec<Header>> {
        let mut rest = self.0.as_slice();
        let mut headers = Vec::new();
        while !rest.is_empty() {
            headers.push((take_text(&mut rest)?.to_owned(), take(&mut rest)?.to_vec()));
        }
        Some(headers)
    }
}

impl Handoff {
    /// The handoff as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        put_number(&mut out, FORMAT);
        self.plan.put(&mut out);
        let deadline = self.deadline.unwrap_or_default().as_millis();
        let deadline = u64::try_from(deadline).unwrap_or(u64::MAX);
        put_u64(&mut out, deadline);
        let numbers = [
            self.hops.unwrap_or_default() as usize,
            usize::from(self.tells_all),
            usize::from(self.judges),
            usize::from(self.uncompressed),
        ];
        for number in numbers {
            put_number(&mut out, number);
        }
        out
    }

    /// Reads a handoff. `None` where the bytes are none, or `config` is not the one that its plan was made with.
    #[must_use]
    pub fn decode(config: &Config, mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        if take_number(rest)? != FORMAT {
            return None;
        }
        let plan = Plan::take(config, rest)?;
        let deadline = Duration::from_millis(take_u64(rest)?);
        let hops = u32::try_from(take_number(rest)?).ok()?;
        Some(Self {
            plan,
            deadline: Some(deadline).filter(|deadline| !deadline.is_zero()),
            hops: Some(hops).filter(|hops| *hops > 0),
            tells_all: take_number(rest)? > 0,
            judges: take_number(rest)? > 0,
            uncompressed: take_number(rest)? > 0,
        })
    }
}
