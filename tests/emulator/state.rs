//! The data: header maps, the two halves of a stream, callouts. No behaviour of the host.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A header map: lower-case names, values as bytes, in order, repeated names kept apart.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, Vec<u8>)>);

impl Headers {
    pub fn from<V: AsRef<[u8]>>(pairs: &[(&str, V)]) -> Self {
        let mut headers = Headers::default();
        for (name, value) in pairs {
            headers.add(name, value.as_ref());
        }
        headers
    }

    /// The first value, as text (invalid UTF-8 replaced).
    pub fn get(&self, name: &str) -> Option<String> {
        let value = self.first(name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next()
    }

    pub fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let found = self.0.iter().filter(move |(key, _)| key == name);
        found.map(|(_, value)| value.as_slice())
    }

    pub fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    pub fn add(&mut self, name: &str, value: &[u8]) {
        self.0.push((name.to_ascii_lowercase(), value.to_vec()));
    }

    /// Keeps the place of the first value, as Envoy's `setCopy` does.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        let name = name.to_ascii_lowercase();
        let Some(place) = self.0.iter().position(|(key, _)| *key == name) else {
            return self.add(&name, value);
        };
        self.remove(&name);
        self.0.insert(place, (name, value.to_vec()));
    }

    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
    }

    /// The ABI's form: count, then the lengths of each pair, then each string with a zero byte.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = (self.0.len() as u32).to_le_bytes().to_vec();
        for (name, value) in &self.0 {
            out.extend((name.len() as u32).to_le_bytes());
            out.extend((value.len() as u32).to_le_bytes());
        }
        for (name, value) in &self.0 {
            out.extend([name.as_bytes(), b"\0", value, b"\0"].concat());
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Self {
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let mut headers = Headers::default();
        if bytes.is_empty() {
            return headers;
        }
        let mut at = 4 + number(0) * 8;
        for pair in 0..number(0) {
            let (name, value) = (number(4 + pair * 8), number(8 + pair * 8));
            let text = std::str::from_utf8(&bytes[at..at + name]).unwrap();
            headers.add(text, &bytes[at + name + 1..at + name + 1 + value]);
            at += name + value + 2;
        }
        headers
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.0.iter();
        f.debug_map()
            .entries(pairs.map(|(name, value)| (name, String::from_utf8_lossy(value))))
            .finish()
    }
}

/// What has gone on, past the filter.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Option<Headers>,
    pub ended: bool,
}

/// What the client has by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientResponse {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Option<Headers>,
    /// The whole answer has arrived.
    pub ended: bool,
    /// The stream was cut.
    pub reset: bool,
}

impl ClientResponse {
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Which bytes the guest's buffer calls mean.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Window {
    #[default]
    None,
    /// The chunk of the body callback that runs.
    Chunk,
    /// All that is held.
    Held,
}

/// One direction of a stream.
#[derive(Default)]
pub struct Half {
    pub headers: Headers,
    pub trailers: Option<Headers>,
    pub received: bool,
    /// The peer has sent its last byte.
    pub ended: bool,
    /// The guest can reach the map. This outlives the release where a body callback released it.
    pub headers_live: bool,
    pub trailers_live: bool,
    pub window: Window,
    pub chunk: Vec<u8>,
    pub held: Vec<u8>,
    pub body_changed: bool,
    pub sent: Option<Sent>,
}

impl Half {
    pub fn body(&mut self) -> Option<&mut Vec<u8>> {
        match self.window {
            Window::None => None,
            Window::Chunk => Some(&mut self.chunk),
            Window::Held => Some(&mut self.held),
        }
    }

    /// Sends on all that is here.
    pub fn release(&mut self) {
        if !self.received {
            return;
        }
        let sent = self.sent.get_or_insert_with(|| Sent {
            headers: self.headers.clone(),
            ..Sent::default()
        });
        sent.body.append(&mut self.held);
        sent.trailers = self.trailers.clone();
        sent.ended = self.ended;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

#[derive(Default)]
pub struct StreamState {
    pub root: u32,
    /// Streams of one request (the request filter's and the attempts') share its filter state.
    pub request_id: u32,
    pub request: Half,
    pub response: Half,
    pub properties: BTreeMap<Vec<u8>, Vec<u8>>,
    pub replied: bool,
    pub reset: bool,
    pub logging: bool,
    pub finishing: bool,
    pub gone: bool,
}

impl StreamState {
    pub fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Request => &mut self.request,
            Side::Response => &mut self.response,
        }
    }
}

/// What the streams of one request share.
#[derive(Default)]
pub struct SharedRequest {
    /// By name as Envoy has it: `wasm.NAME`.
    pub filter_state: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The one request header map that every attempt sees and changes.
    pub headers: Headers,
}

/// A callout that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callout {
    pub token: u32,
    /// The stream that was the effective context; `None`: dispatched as the root.
    pub stream: Option<u32>,
    pub root: u32,
    pub cluster: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Headers,
    /// Zero: none.
    pub timeout: Duration,
    /// Nanoseconds of the virtual clock; `None`: never.
    pub deadline: Option<u64>,
}

/// How often each host function was called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostCalls(pub BTreeMap<&'static str, u64>);

impl HostCalls {
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub fn of(&self, function: &str) -> u64 {
        self.0.get(function).copied().unwrap_or_default()
    }
}
