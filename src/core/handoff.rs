//! What the request filter tells the attempt filters of a request, in `dispatch: router`.
//!
//! They run in different VMs and share nothing but Envoy's filter state, which holds bytes.

use std::ops::Range;
use std::time::Duration;

use super::bytes::{put, put_number, put_u64, take, take_number, take_text, take_u64};
use super::config::Config;
use super::fit::Header;
use super::plan::Plan;

/// The plan of a request, and the request as it was before it was made to fit its primary.
#[derive(Debug, Clone, PartialEq)]
pub struct Handoff {
    /// The plan.
    pub plan: Plan,
    /// When the total timeout is used up, since the Unix epoch: the VMs share no other clock.
    pub deadline: Option<Duration>,
    /// The bytes of the body, as the primary gets it, that were added to name a model.
    pub added: Range<usize>,
    /// The length of the body, as the primary gets it, in bytes.
    pub body_len: usize,
    /// How often the request came through, with this time, where that is counted.
    pub hops: Option<u32>,
    /// The request filter is to be told of a good answer, too, how far the request has come.
    pub tells_all: bool,
    /// The request headers as the client sent them.
    pub original: PackedHeaders,
}

/// Headers as bytes. The first attempt needs none of them, and few requests have another one.
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
        let mut out = Vec::with_capacity(256 + self.original.0.len());
        self.plan.put(&mut out);
        let deadline = self.deadline.unwrap_or_default().as_millis();
        let deadline = u64::try_from(deadline).unwrap_or(u64::MAX);
        put_u64(&mut out, deadline);
        let numbers = [
            self.added.start,
            self.added.end,
            self.body_len,
            self.hops.unwrap_or_default() as usize,
            usize::from(self.tells_all),
        ];
        for number in numbers {
            put_number(&mut out, number);
        }
        out.extend_from_slice(&self.original.0);
        out
    }

    /// Reads a handoff. `None` where the bytes are none, or `config` is not the one that its plan was made with.
    #[must_use]
    pub fn decode(config: &Config, mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        let plan = Plan::take(config, rest)?;
        let deadline = Duration::from_millis(take_u64(rest)?);
        let added = take_number(rest)?..take_number(rest)?;
        let body_len = take_number(rest)?;
        let hops = u32::try_from(take_number(rest)?).ok()?;
        Some(Self {
            plan,
            deadline: Some(deadline).filter(|deadline| !deadline.is_zero()),
            added,
            body_len,
            hops: Some(hops).filter(|hops| *hops > 0),
            tells_all: take_number(rest)? > 0,
            original: PackedHeaders(rest.to_vec()),
        })
    }
}
