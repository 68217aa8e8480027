//! What the request filter tells the attempt filters of a request, in `dispatch: router`.
//!
//! They run in different VMs and share nothing but Envoy's filter state, which holds bytes.

use std::ops::Range;
use std::rc::Rc;

use super::config::Config;
use super::fit::Header;
use super::plan::Plan;

/// The plan of a request, and the request as it was before it was made to fit its primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handoff {
    /// Number of the Model API in the configuration.
    pub api: usize,
    /// Its name: a filter whose configuration has another one there must not act.
    pub api_name: String,
    /// The model that the client asked for.
    pub model: Option<String>,
    /// The client asked for a stream.
    pub stream: bool,
    /// The bytes of the body, as the primary gets it, that were added to name a model.
    pub added: Range<usize>,
    /// The length of the body, as the primary gets it, in bytes.
    pub body_len: usize,
    /// The request headers as the client sent them.
    pub original: Vec<Header>,
}

impl Handoff {
    /// The handoff as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        for number in [
            self.api,
            usize::from(self.stream),
            self.added.start,
            self.added.end,
            self.body_len,
        ] {
            put_number(&mut out, number);
        }
        put_number(&mut out, usize::from(self.model.is_some()));
        put(
            &mut out,
            self.model.as_deref().unwrap_or_default().as_bytes(),
        );
        put(&mut out, self.api_name.as_bytes());
        encode_headers(&self.original, &mut out);
        out
    }

    /// Reads a handoff. `None` where the bytes are none.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        let (api, stream) = (take_number(rest)?, take_number(rest)? != 0);
        let added = take_number(rest)?..take_number(rest)?;
        let body_len = take_number(rest)?;
        let has_model = take_number(rest)? != 0;
        let model = String::from_utf8(take(rest)?.to_vec()).ok()?;
        let api_name = String::from_utf8(take(rest)?.to_vec()).ok()?;
        Some(Self {
            api,
            api_name,
            model: has_model.then_some(model),
            stream,
            added,
            body_len,
            original: decode_headers(rest)?,
        })
    }

    /// The plan of the request. `None` where `config` is not the one that the plan was made with.
    #[must_use]
    pub fn plan(&self, config: &Config) -> Option<Plan> {
        let api = config
            .model_apis
            .get(self.api)
            .filter(|api| api.name == self.api_name)?;
        Some(Plan::new(Rc::clone(api), self.model.clone()))
    }
}

fn encode_headers(headers: &[Header], out: &mut Vec<u8>) {
    for (name, value) in headers {
        put(out, name.as_bytes());
        put(out, value);
    }
}

fn decode_headers(mut bytes: &[u8]) -> Option<Vec<Header>> {
    let mut headers = Vec::new();
    while !bytes.is_empty() {
        let name = String::from_utf8(take(&mut bytes)?.to_vec()).ok()?;
        headers.push((name, take(&mut bytes)?.to_vec()));
    }
    Some(headers)
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_number(bytes)?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    usize::try_from(u32::from_le_bytes(*number)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handoff() -> Handoff {
        Handoff {
            api: 7,
            api_name: "chat".to_owned(),
            model: Some("gpt-4o".to_owned()),
            stream: true,
            added: 1..18,
            body_len: 99,
            original: vec![
                (":path".to_owned(), b"/v1/chat/completions".to_vec()),
                ("x-odd".to_owned(), b"\xff".to_vec()),
                ("x-empty".to_owned(), Vec::new()),
            ],
        }
    }

    #[test]
    fn what_was_handed_over_is_what_arrives() {
        let bare = Handoff {
            model: None,
            original: Vec::new(),
            ..handoff()
        };
        for one in [handoff(), bare] {
            assert_eq!(Handoff::decode(&one.encode()), Some(one));
        }
    }

    #[test]
    fn bytes_that_are_cut_off_are_no_handoff() {
        let bytes = Handoff {
            original: Vec::new(),
            ..handoff()
        }
        .encode();
        for cut in 0..bytes.len() {
            assert_eq!(Handoff::decode(&bytes[..cut]), None, "cut at {cut}");
        }
        assert_eq!(decode_headers(b"\x01\0\0"), None);
    }
}
