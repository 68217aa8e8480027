//! What a service received and how each exchange went.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Version};
use serde_json::{Value, json};
use tokio::sync::watch;

/// The header by which tests find their own requests.
pub const TEST_ID: &str = "x-test-id";

/// Older exchanges are forgotten, so that a program that runs for long does not grow.
const KEPT: usize = 10_000;

/// One request as it arrived, and how its exchange went.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method.
    pub method: String,
    /// Path and query, as they came.
    pub path: String,
    /// `:authority` (HTTP/2) or `host`.
    pub authority: String,
    /// Every header in order; names in lower case, values to the byte.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What has arrived of the body.
    pub body: Bytes,
    /// Trailers of the request.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// The whole request has arrived.
    pub complete: bool,
    /// HTTP version.
    pub version: Version,
    /// When the headers had arrived.
    pub at: Instant,
    /// Chunks of the answer sent so far, without fillers.
    pub chunks_sent: usize,
    /// When the first chunk was sent.
    pub first_chunk_at: Option<Instant>,
    /// When the last chunk so far was sent.
    pub last_chunk_at: Option<Instant>,
    /// How the exchange ended; `None` while it is open.
    pub ended: Option<Ended>,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The whole answer was handed to the connection.
    Completed,
    /// The client went away (or this service was stopped) before the end.
    ClientGone,
    /// The service reset it on purpose.
    Reset,
    /// The service closed it without the end of the body, on purpose.
    Cut,
}

impl Received {
    /// The first value of a header, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value).ok()
    }

    /// The body as JSON; `null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The top-level `model` of the body.
    pub fn model(&self) -> Option<String> {
        self.json()["model"].as_str().map(str::to_owned)
    }

    fn new(head: &Parts) -> Received {
        let host = head.headers.get("host");
        let authority = match head.uri.authority() {
            Some(authority) => authority.to_string(),
            None => host.map_or_else(String::new, |host| latin1(host.as_bytes())),
        };
        let path = head.uri.path_and_query();
        Received {
            method: head.method.to_string(),
            path: path.map_or_else(|| head.uri.to_string(), ToString::to_string),
            authority,
            headers: pairs(&head.headers),
            body: Bytes::new(),
            trailers: Vec::new(),
            complete: false,
            version: head.version,
            at: Instant::now(),
            chunks_sent: 0,
            first_chunk_at: None,
            last_chunk_at: None,
            ended: None,
        }
    }

    fn grow(&mut self, data: &[u8]) {
        let body = mem::take(&mut self.body);
        // In place, unless someone holds the bytes so far.
        let body = body.try_into_mut();
        let mut body = body.unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        body.extend_from_slice(data);
        self.body = body.freeze();
    }

    fn to_json(&self, start: Instant) -> Value {
        let millis = |at: Instant| at.duration_since(start).as_millis() as u64;
        let text = std::str::from_utf8(&self.body);
        let encoding = if text.is_ok() { "utf-8" } else { "latin-1" };
        json!({
            "method": self.method,
            "path": self.path,
            "authority": self.authority,
            "version": format!("{:?}", self.version),
            "headers": json_pairs(&self.headers),
            "body": text.map_or_else(|_| latin1(&self.body), str::to_owned),
            "body_encoding": encoding,
            "trailers": json_pairs(&self.trailers),
            "complete": self.complete,
            "at_ms": millis(self.at),
            "chunks_sent": self.chunks_sent,
            "first_chunk_at_ms": self.first_chunk_at.map(millis),
            "last_chunk_at_ms": self.last_chunk_at.map(millis),
            "ended": self.ended.map(|ended| format!("{ended:?}")),
        })
    }
}

/// Everything that one service received.
pub struct Log {
    start: Instant,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    next: u64,
    entries: BTreeMap<u64, Received>,
}

impl Log {
    pub fn new() -> Log {
        Log {
            start: Instant::now(),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    pub fn begin(self: &Arc<Self>, head: &Parts) -> Exchange {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.entries.insert(id, Received::new(head));
        if state.entries.len() > KEPT {
            state.entries.pop_first();
        }
        drop(state);
        self.changed.send_replace(());
        Exchange {
            log: self.clone(),
            id,
        }
    }

    pub fn all(&self) -> Vec<Received> {
        self.state().entries.values().cloned().collect()
    }

    pub fn with_id(&self, id: &str) -> Vec<Received> {
        let state = self.state();
        let mine = state.entries.values();
        mine.filter(|entry| entry.header(TEST_ID) == Some(id))
            .cloned()
            .collect()
    }

    pub fn count_of(&self, id: &str) -> usize {
        let state = self.state();
        let mine = state.entries.values();
        mine.filter(|entry| entry.header(TEST_ID) == Some(id))
            .count()
    }

    pub fn open(&self) -> usize {
        let state = self.state();
        let entries = state.entries.values();
        entries.filter(|entry| entry.ended.is_none()).count()
    }

    /// Forgets the exchanges that have ended.
    pub fn clear(&self) {
        let keep = |_: &u64, entry: &mut Received| entry.ended.is_none();
        self.state().entries.retain(keep);
        self.changed.send_replace(());
    }

    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub fn to_json(&self) -> Value {
        let all = self.all();
        all.iter().map(|entry| entry.to_json(self.start)).collect()
    }

    // A test that panicked while it held the lock must not fail the others.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|held| held.into_inner())
    }
}

/// One exchange under way. Dropped before its end: the client went away.
pub struct Exchange {
    log: Arc<Log>,
    id: u64,
}

impl Exchange {
    pub fn data(&self, data: &[u8]) {
        self.update(|entry| entry.grow(data));
    }

    pub fn trailers(&self, trailers: &HeaderMap) {
        self.update(|entry| entry.trailers = pairs(trailers));
    }

    /// The whole request has arrived.
    pub fn complete(&self) {
        self.update(|entry| entry.complete = true);
    }

    pub fn chunk_sent(&self) {
        self.update(|entry| {
            let now = Instant::now();
            entry.chunks_sent += 1;
            entry.first_chunk_at.get_or_insert(now);
            entry.last_chunk_at = Some(now);
        });
    }

    /// The first end counts.
    pub fn end(&self, how: Ended) {
        self.update(|entry| {
            entry.ended.get_or_insert(how);
        });
    }

    pub fn body(&self) -> Bytes {
        let state = self.log.state();
        let entry = state.entries.get(&self.id);
        entry.map_or_else(Bytes::new, |entry| entry.body.clone())
    }

    fn update(&self, change: impl FnOnce(&mut Received)) {
        if let Some(entry) = self.log.state().entries.get_mut(&self.id) {
            change(entry);
        }
        self.log.changed.send_replace(());
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end(Ended::ClientGone);
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let pair = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (name.to_string(), value.as_bytes().to_vec())
    };
    headers.iter().map(pair).collect()
}

fn json_pairs(pairs: &[(String, Vec<u8>)]) -> Value {
    let pair = |(name, value): &(String, Vec<u8>)| json!([name, latin1(value)]);
    pairs.iter().map(pair).collect()
}

/// One character per byte: nothing is lost.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}
