//! What each host call does to the state of the thread's host.

use super::state::*;
use proxy_wasm::types::{BufferType, LogLevel, MapType, MetricType, Status};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// What a host call gives, or the status that refuses it.
pub type Answer<T = ()> = Result<T, Status>;

thread_local! {
    static HOST: RefCell<Host> = RefCell::new(Host::default());
}

/// Runs `f` on the thread's host. Guest code must not run inside.
pub fn host<R>(f: impl FnOnce(&mut Host) -> R) -> R {
    HOST.with_borrow_mut(f)
}

/// As [`host`], for calls that may come while the emulator itself panics.
pub fn try_host(f: impl FnOnce(&mut Host)) {
    let _ = HOST.try_with(|host| host.try_borrow_mut().map(|mut host| f(&mut host)));
}

#[derive(Default)]
pub struct RootState {
    pub vm_id: String,
    pub root_id: String,
    pub name: String,
    pub vm_config: Vec<u8>,
    pub config: Vec<u8>,
    pub configuring: bool,
    pub tick: Option<Tick>,
}

/// The timer of a root, in nanoseconds of the virtual clock.
pub struct Tick {
    pub period: u64,
    pub next: u64,
}

/// What Envoy does only after the callback has returned.
pub enum Deferred {
    Resume(Side),
    Reply(Sent),
    Reset,
}

#[derive(Default)]
pub struct Host {
    pub live: bool,
    pub now: u64,
    /// Never set back: the SDK of this thread remembers old ids.
    pub last_context: u32,
    pub last_token: u32,
    pub roots: BTreeMap<u32, RootState>,
    pub streams: BTreeMap<u32, StreamState>,
    pub requests: BTreeMap<u32, SharedRequest>,
    pub active: u32,
    pub effective: u32,
    pub deferred: Vec<(u32, Deferred)>,
    pub stop_iteration: bool,
    pub clusters: Option<BTreeSet<String>>,
    pub callouts: BTreeMap<u32, Callout>,
    pub answer: Option<Sent>,
    pub buffer_limit: usize,
    pub held_replies_pass_callbacks: bool,
    pub callouts_end_with_streams: bool,
    pub metrics: Vec<(MetricType, String)>,
    pub values: BTreeMap<String, Vec<u64>>,
    /// By `vm_id` and key: the bytes, and the number of the write.
    pub shared_data: BTreeMap<(String, Vec<u8>), (Vec<u8>, u32)>,
    pub shared_writes: u32,
    /// What other workers write just before the next writes.
    pub faster_writes: VecDeque<Vec<u8>>,
    pub foreign_calls: BTreeMap<String, u64>,
    pub calls: HostCalls,
    pub refusals: Option<Refusals>,
    pub logs: Vec<(LogLevel, String)>,
    pub violations: Vec<String>,
}

/// Calls that are refused for no reason.
pub struct Refusals {
    /// One call of so many.
    pub one_in: u64,
    /// Which ones: any number.
    pub seed: u64,
}

impl Host {
    /// Whether a call is refused for no reason, and how.
    pub fn refused(&mut self, name: &str) -> Option<Status> {
        const ANY: [Status; 7] = [
            Status::NotFound,
            Status::BadArgument,
            Status::SerializationFailure,
            Status::ParseFailure,
            Status::Empty,
            Status::CasMismatch,
            Status::InternalFailure,
        ];
        // The SDK itself makes the first two, and panics on any other status than these of the third.
        let statuses: &[Status] = match name {
            "proxy_set_effective_context" | "proxy_get_log_level" => return None,
            "proxy_http_call" => &[Status::BadArgument, Status::InternalFailure],
            _ => &ANY,
        };
        let refusals = self.refusals.as_mut()?;
        refusals.seed = refusals
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let random = refusals.seed >> 33;
        (random % refusals.one_in == 0).then(|| statuses[(random >> 8) as usize % statuses.len()])
    }

    pub fn violate(&mut self, text: impl Into<String>) {
        self.violations.push(text.into());
    }

    /// For a status that the SDK answers with a panic, in every call it has.
    fn refuse<T>(&mut self, text: impl Into<String>) -> Answer<T> {
        self.violate(text);
        Err(Status::BadArgument)
    }

    /// The context that a host call acts on.
    pub fn context(&self) -> u32 {
        if self.alive(self.effective) {
            return self.effective;
        }
        self.active
    }

    pub fn alive(&self, context: u32) -> bool {
        let stream = self.streams.get(&context);
        self.roots.contains_key(&context) || stream.is_some_and(|stream| !stream.gone)
    }

    pub fn stream(&mut self) -> Option<&mut StreamState> {
        self.streams.get_mut(&self.context())
    }

    pub fn root_context(&self) -> u32 {
        let context = self.context();
        self.streams.get(&context).map_or(context, |s| s.root)
    }

    pub fn root(&mut self) -> Answer<&mut RootState> {
        let root = self.root_context();
        self.roots.get_mut(&root).ok_or(Status::InternalFailure)
    }

    pub fn set_effective_context(&mut self, context: u32) -> Answer {
        if !self.alive(context) {
            return Err(Status::BadArgument);
        }
        self.effective = context;
        Ok(())
    }

    // Maps and buffers.

    /// As Envoy's `getConstMap`: in the log phase all headers can be read again.
    fn readable_map(&mut self, map: MapType) -> Option<Headers> {
        match map {
            MapType::HttpCallResponseHeaders => return Some(self.answer.as_ref()?.headers.clone()),
            MapType::HttpCallResponseTrailers => return self.answer.as_ref()?.trailers.clone(),
            _ => {}
        }
        let stream = self.stream()?;
        let logging = stream.logging;
        let half = stream.half(side_of(map)?);
        match is_trailers(map) {
            true if half.trailers_live || logging => half.trailers.clone(),
            false if half.headers_live || logging && half.received => Some(half.headers.clone()),
            _ => None,
        }
    }

    pub fn header(&mut self, map: MapType, name: &str) -> Answer<Vec<u8>> {
        let logging = self.stream().is_some_and(|stream| stream.logging);
        let Some(headers) = self.readable_map(map) else {
            return match logging {
                true => Err(Status::NotFound),
                false => self.refuse(format!("{map:?} read (`{name}`) when it is not there")),
            };
        };
        // Seen: only the first value of a repeated header.
        let value = headers.first(&name.to_ascii_lowercase());
        value.map(<[u8]>::to_vec).ok_or(Status::NotFound)
    }

    /// An absent map reads as an empty one.
    pub fn headers(&mut self, map: MapType) -> Vec<u8> {
        let headers = self.readable_map(map).unwrap_or_default();
        if headers.0.is_empty() {
            return Vec::new();
        }
        headers.encode()
    }

    pub fn change_map(&mut self, map: MapType, change: impl FnOnce(&mut Headers)) -> Answer {
        let Some((headers, released)) = self.writable_map(map) else {
            return self.refuse(format!("{map:?} changed when it is not there"));
        };
        change(headers);
        if released {
            // Envoy says Ok: the map is still there, but what was in it has gone on.
            self.violate(format!("{map:?} changed after it was released"));
        }
        Ok(())
    }

    fn writable_map(&mut self, map: MapType) -> Option<(&mut Headers, bool)> {
        let half = self.stream()?.half(side_of(map)?);
        let released = half.sent.is_some();
        if !is_trailers(map) {
            return half.headers_live.then_some((&mut half.headers, released));
        }
        // As Envoy: at the end of a body without trailers, the guest may add some.
        if half.trailers.is_none() && half.window != Window::None && half.ended {
            half.trailers = Some(Headers::default());
            half.trailers_live = true;
        }
        let trailers = half.trailers.as_mut()?;
        half.trailers_live.then_some((trailers, false))
    }

    /// An absent body reads as an empty one.
    pub fn buffer(&mut self, kind: BufferType, start: usize, size: usize) -> Answer<Vec<u8>> {
        let bytes = match kind {
            BufferType::VmConfiguration => self.root()?.vm_config.clone(),
            BufferType::PluginConfiguration if self.root()?.configuring => {
                self.root()?.config.clone()
            }
            BufferType::HttpCallResponseBody => {
                let answer = self.answer.as_ref();
                answer.ok_or(Status::NotFound)?.body.clone()
            }
            _ => {
                let side = body_side(kind).ok_or(Status::NotFound)?;
                let body = self.stream().and_then(|s| s.half(side).body());
                body.map(|body| body.clone()).unwrap_or_default()
            }
        };
        let start = start.min(bytes.len());
        Ok(bytes[start..start.saturating_add(size).min(bytes.len())].to_vec())
    }

    pub fn set_buffer(
        &mut self,
        kind: BufferType,
        start: usize,
        size: usize,
        data: &[u8],
    ) -> Answer {
        let half = body_side(kind).and_then(|side| Some(self.stream()?.half(side)));
        let changed = half.and_then(|half| {
            half.body_changed = true;
            let body = half.body()?;
            match start {
                0 => drop(body.splice(..size.min(body.len()), data.iter().copied())),
                _ if start >= body.len() => body.extend(data),
                _ => return None,
            }
            Some(())
        });
        // Seen: a held message that came without a body has no buffer, so it cannot be given one.
        match changed {
            Some(()) => Ok(()),
            None => self.refuse(format!("{kind:?} set at {start} where that cannot be done")),
        }
    }

    // Streams.

    pub fn continue_stream(&mut self, kind: u32) -> Answer {
        let side = match kind {
            0 => Side::Request,
            1 => Side::Response,
            _ => return self.refuse("a TCP stream was continued"),
        };
        let Some(stream) = self.stream() else {
            return Ok(());
        };
        // Seen: continuing either side takes the request's maps away at once.
        stream.request.headers_live = false;
        stream.request.trailers_live = false;
        if stream.request.window == Window::Chunk {
            stream.request.window = Window::None;
        }
        self.defer(Deferred::Resume(side));
        Ok(())
    }

    pub fn send_local_response(&mut self, status: u32, headers: Headers, body: &[u8]) {
        let mut reply = Sent {
            headers: Headers::from(&[(":status", status.to_string())]),
            body: body.to_vec(),
            ..Sent::default()
        };
        reply.headers.0.extend(headers.0);
        if !body.is_empty() {
            reply
                .headers
                .set("content-length", body.len().to_string().as_bytes());
            if !reply.headers.has("content-type") {
                reply.headers.add("content-type", b"text/plain");
            }
        }
        self.stop_iteration = true;
        // Seen: a root context has no stream to answer.
        if self.stream().is_some() {
            self.defer(Deferred::Reply(reply));
        }
    }

    pub fn close_stream(&mut self) {
        self.stop_iteration = true;
        self.defer(Deferred::Reset);
    }

    fn defer(&mut self, action: Deferred) {
        let context = self.context();
        self.deferred.push((context, action));
    }

    // Callouts and timers.

    pub fn http_call(
        &mut self,
        cluster: String,
        mut headers: Headers,
        body: &[u8],
        trailers: Headers,
        timeout: u32,
    ) -> Answer<u32> {
        let known = self
            .clusters
            .as_ref()
            .is_none_or(|all| all.contains(&cluster));
        let host = headers.has(":authority") || headers.has("host");
        if !known || !host || !headers.has(":method") || !headers.has(":path") {
            return Err(Status::BadArgument);
        }
        if !body.is_empty() {
            headers.set("content-length", body.len().to_string().as_bytes());
        }
        self.last_token += 1;
        let context = self.context();
        let timeout = Duration::from_millis(timeout.into());
        let callout = Callout {
            token: self.last_token,
            stream: self.streams.contains_key(&context).then_some(context),
            root: self.root_context(),
            cluster,
            headers,
            body: body.to_vec(),
            trailers,
            timeout,
            deadline: (!timeout.is_zero()).then(|| self.now + timeout.as_nanos() as u64),
        };
        self.callouts.insert(self.last_token, callout);
        Ok(self.last_token)
    }

    pub fn set_tick_period(&mut self, milliseconds: u32) -> Answer {
        let period = u64::from(milliseconds) * 1_000_000;
        let next = self.now + period;
        self.root()?.tick = (period > 0).then_some(Tick { period, next });
        Ok(())
    }
}

fn side_of(map: MapType) -> Option<Side> {
    match map {
        MapType::HttpRequestHeaders | MapType::HttpRequestTrailers => Some(Side::Request),
        MapType::HttpResponseHeaders | MapType::HttpResponseTrailers => Some(Side::Response),
        _ => None,
    }
}

fn is_trailers(map: MapType) -> bool {
    matches!(
        map,
        MapType::HttpRequestTrailers | MapType::HttpResponseTrailers
    )
}

fn body_side(kind: BufferType) -> Option<Side> {
    match kind {
        BufferType::HttpRequestBody => Some(Side::Request),
        BufferType::HttpResponseBody => Some(Side::Response),
        _ => None,
    }
}
