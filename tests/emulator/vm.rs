//! The VM: start, virtual time, callouts, and all that a test can look at.

use super::abi::guest;
use super::flow;
use super::host::{Host, Refusals, RootState, host};
use super::state::*;
use super::stream::Stream;
use proxy_wasm::types::LogLevel;
use std::marker::PhantomData;
use std::sync::Mutex;
use std::time::Duration;

/// The SDK sets the process's logger without a lock, so that only one thread may register at a time.
static REGISTERING: Mutex<()> = Mutex::new(());

/// One worker's VM. Dropping it ends its streams and contexts.
#[derive(Debug)]
pub struct Vm {
    root: Root,
    this_thread_only: PhantomData<*const ()>,
}

/// A root context: one plugin configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root(u32);

/// How the plugin is configured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plugin<'a> {
    /// Plugins with the same one share their data.
    pub vm_id: &'a str,
    pub root_id: &'a str,
    pub name: &'a str,
    pub vm_config: &'a [u8],
    pub config: &'a [u8],
}

/// The filter said no to its configuration; the lines it logged.
#[derive(Debug)]
pub struct Refused {
    pub logs: Vec<String>,
}

impl Vm {
    /// `register` is what the filter's `_initialize` does: `proxy_wasm::set_root_context` and so on.
    pub fn start(register: fn(), root_id: &str, config: &[u8]) -> Result<Vm, Refused> {
        let name = root_id;
        Vm::start_plugin(
            register,
            Plugin {
                root_id,
                name,
                config,
                ..Plugin::default()
            },
        )
    }

    pub fn start_plugin(register: fn(), plugin: Plugin) -> Result<Vm, Refused> {
        let fresh = |h: &Host| Host {
            live: true,
            now: 1_800_000_000_000_000_000,
            last_context: h.last_context,
            last_token: h.last_token,
            buffer_limit: 1 << 20,
            ..Host::default()
        };
        host(|h| {
            assert!(!h.live, "one Vm per thread at a time");
            *h = fresh(h);
        });
        let mut vm = Vm {
            root: Root(0),
            this_thread_only: PhantomData,
        };
        {
            let _one_at_a_time = REGISTERING
                .lock()
                .unwrap_or_else(|poison| poison.into_inner());
            register();
        }
        vm.root = vm.add_root(plugin)?;
        Ok(vm)
    }

    /// A second plugin, or the same on a second worker, as if in a VM of its own: contexts of both live in
    /// this thread.
    pub fn add_root(&mut self, plugin: Plugin) -> Result<Root, Refused> {
        let id = self.next_context();
        let root = RootState {
            vm_id: plugin.vm_id.to_owned(),
            root_id: plugin.root_id.to_owned(),
            name: plugin.name.to_owned(),
            vm_config: plugin.vm_config.to_vec(),
            config: plugin.config.to_vec(),
            configuring: true,
            tick: None,
        };
        host(|h| h.roots.insert(id, root));
        flow::call(id, || guest::proxy_on_context_create(id, 0));
        let started =
            flow::call(id, || guest::proxy_on_vm_start(id, plugin.vm_config.len())).result;
        let configured =
            started && flow::call(id, || guest::proxy_on_configure(id, plugin.config.len())).result;
        host(|h| h.roots.get_mut(&id).unwrap().configuring = false);
        if configured {
            return Ok(Root(id));
        }
        let logs = self.logs().into_iter().map(|(_, text)| text).collect();
        Err(Refused { logs })
    }

    /// A new stream of the first plugin.
    pub fn stream(&mut self) -> Stream {
        self.create_stream(self.root, None)
    }

    /// The root of the first plugin.
    pub fn root(&self) -> Root {
        self.root
    }

    /// A new stream of another plugin, or on another worker.
    pub fn stream_of(&mut self, root: Root) -> Stream {
        self.create_stream(root, None)
    }

    /// Runs `f` as if Envoy had called into the plugin: for parts of a filter that make host calls.
    pub fn within<R>(&mut self, root: Root, f: impl FnOnce() -> R) -> R {
        flow::call(root.0, f).result
    }

    /// The VM of this root is gone at once, as after a panic: nothing in it is told. Its streams and
    /// callouts go with it.
    pub fn crash(&mut self, root: Root) {
        host(|h| {
            h.roots.remove(&root.0);
            h.callouts.retain(|_, callout| callout.root != root.0);
            let streams = h.streams.values_mut();
            streams
                .filter(|stream| stream.root == root.0)
                .for_each(|stream| (stream.finishing, stream.gone) = (true, true));
        });
    }

    /// A stream of another plugin for the same request: an attempt.
    pub fn attempt_stream(&mut self, request: &Stream, root: Root) -> Stream {
        self.create_stream(root, Some(request.id))
    }

    // Callouts.

    /// Without it every cluster is known.
    pub fn set_clusters<const N: usize>(&mut self, names: [&str; N]) {
        let names = names.map(str::to_owned);
        host(|h| h.clusters = Some(names.into()));
    }

    /// The callouts that wait, in the order of their dispatch.
    pub fn callouts(&self) -> Vec<Callout> {
        host(|h| h.callouts.values().cloned().collect())
    }

    /// Panics where no such callout waits.
    pub fn answer<V: AsRef<[u8]>>(
        &mut self,
        token: u32,
        headers: &[(&str, V)],
        body: &[u8],
        trailers: &[(&str, V)],
    ) {
        let trailers = (!trailers.is_empty()).then(|| Headers::from(trailers));
        deliver(
            token,
            Sent {
                headers: Headers::from(headers),
                body: body.to_vec(),
                trailers,
                ended: true,
            },
        );
    }

    /// No answer at all: Envoy calls back with no headers (its buffer for the answer was full).
    pub fn answer_nothing(&mut self, token: u32) {
        deliver(token, Sent::default());
    }

    /// Not what Envoy does: seen, a callout goes on after its stream has ended, and its answer is
    /// delivered (the SDK drops it where a stream dispatched it; a tick's comes to the root).
    pub fn end_callouts_with_streams(&mut self) {
        host(|h| h.callouts_end_with_streams = true);
    }

    // Settings.

    /// Sends replies in place of held response headers through the response callbacks (Envoy does not).
    pub fn pass_held_replies_through_callbacks(&mut self) {
        host(|h| h.held_replies_pass_callbacks = true);
    }

    /// How much of a request may be held, in bytes (1 MiB at first); over it Envoy answers 413.
    pub fn set_buffer_limit(&mut self, bytes: usize) {
        host(|h| h.buffer_limit = bytes);
    }

    // Shared data.

    /// As if another VM with this `vm_id` had written it.
    pub fn write_shared_data(&mut self, vm_id: &str, key: &str, value: &[u8]) {
        let key = (vm_id.to_owned(), key.into());
        host(|h| h.write_shared_data(key, value.to_vec(), 0)).unwrap();
    }

    pub fn shared_data(&self, vm_id: &str, key: &str) -> Option<Vec<u8>> {
        let key = (vm_id.to_owned(), key.into());
        host(|h| h.shared_data.get(&key).map(|(value, _)| value.clone()))
    }

    /// Just before each of the next writes, another worker writes one of these to the same key.
    pub fn others_write_first(&mut self, values: impl IntoIterator<Item = Vec<u8>>) {
        host(|h| h.faster_writes.extend(values));
    }

    // Time.

    /// Since 1970.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(host(|h| h.now))
    }

    /// Moves the clock. Ticks and callouts' timeouts (a 504) come at their time, in order.
    pub fn advance(&mut self, by: Duration) {
        let end = host(|h| h.now) + by.as_nanos() as u64;
        while let Some((at, event)) = host(|h| next_event(h)).filter(|(at, _)| *at <= end) {
            host(|h| h.now = at);
            match event {
                Event::Tick(root) => tick(root),
                Event::Timeout(token) => time_out(token),
            }
        }
        host(|h| h.now = end);
    }

    // What there is to see.

    /// Zero where it was never counted.
    pub fn counter(&self, name: &str) -> u64 {
        host(|h| h.values.get(name).map_or(0, |values| values[0]))
    }

    /// Counters and gauges of the filter by their name and labels that they must have, as in `requests result=skipped`:
    /// the sum of all that are so.
    pub fn metric(&self, what: &str) -> u64 {
        let wanted: Vec<&str> = what.split(' ').collect();
        let is_wanted = |name: &str| {
            let own = name.strip_prefix("ai_fallback.").unwrap_or_default();
            let parts: Vec<&str> = own.split('.').collect();
            parts.first() == wanted.first() && wanted.iter().all(|part| parts.contains(part))
        };
        host(|h| {
            let values = h.values.iter().filter(|(name, _)| is_wanted(name));
            values.map(|(_, values)| values[0]).sum()
        })
    }

    pub fn gauge(&self, name: &str) -> u64 {
        self.counter(name)
    }

    pub fn histogram(&self, name: &str) -> Vec<u64> {
        host(|h| h.values.get(name).cloned().unwrap_or_default())
    }

    pub fn tick_period(&self) -> Option<Duration> {
        self.tick_period_of(self.root)
    }

    pub fn tick_period_of(&self, root: Root) -> Option<Duration> {
        let period = host(|h| h.roots[&root.0].tick.as_ref().map(|tick| tick.period));
        period.map(Duration::from_nanos)
    }

    pub fn logs(&self) -> Vec<(LogLevel, String)> {
        host(|h| h.logs.clone())
    }

    pub fn host_calls(&self) -> HostCalls {
        host(|h| h.calls.clone())
    }

    /// From now on one host call of so many is refused; `seed` says which.
    pub fn refuse_calls(&mut self, one_in: u64, seed: u64) {
        host(|h| h.refusals = Some(Refusals { one_in, seed }));
    }

    /// Ends that, and forgets what has become of the streams: it need not make sense.
    pub fn forgive(&mut self) {
        host(|h| {
            h.refusals = None;
            h.violations.clear();
        });
    }

    pub fn reset_host_calls(&mut self) {
        host(|h| h.calls = HostCalls::default());
    }

    pub fn foreign_calls(&self, name: &str) -> u64 {
        host(|h| h.foreign_calls.get(name).copied().unwrap_or_default())
    }

    /// Streams that the filter still has a context for.
    pub fn live_streams(&self) -> usize {
        host(|h| h.streams.values().filter(|stream| !stream.gone).count())
    }

    /// What the filter did that would panic, break the stream, or do nothing in a real Envoy.
    pub fn violations(&self) -> Vec<String> {
        host(|h| h.violations.clone())
    }

    fn next_context(&mut self) -> u32 {
        host(|h| {
            h.last_context += 1;
            h.last_context
        })
    }

    fn create_stream(&mut self, root: Root, request: Option<u32>) -> Stream {
        let id = self.next_context();
        host(|h| {
            let request = request.map_or(id, |parent| h.streams[&parent].request_id);
            let state = StreamState {
                root: root.0,
                request_id: request,
                ..StreamState::default()
            };
            h.requests.entry(request).or_default();
            h.streams.insert(id, state);
        });
        flow::call(id, || guest::proxy_on_context_create(id, root.0));
        Stream { id }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let (streams, roots) = host(|h| {
            let streams: Vec<u32> = h.streams.keys().copied().collect();
            let roots: Vec<u32> = h.roots.keys().copied().collect();
            (streams, roots)
        });
        streams.into_iter().for_each(flow::finish);
        for root in roots {
            flow::call(root, || guest::proxy_on_done(root));
            flow::call(root, || guest::proxy_on_delete(root));
        }
        host(|h| h.live = false);
    }
}

enum Event {
    Tick(u32),
    Timeout(u32),
}

fn next_event(h: &Host) -> Option<(u64, Event)> {
    let ticks = h
        .roots
        .iter()
        .filter_map(|(id, root)| Some((root.tick.as_ref()?.next, Event::Tick(*id))));
    let timeouts = h
        .callouts
        .values()
        .filter_map(|callout| Some((callout.deadline?, Event::Timeout(callout.token))));
    ticks.chain(timeouts).min_by_key(|(at, _)| *at)
}

fn tick(root: u32) {
    host(|h| {
        if let Some(tick) = h.roots.get_mut(&root).and_then(|root| root.tick.as_mut()) {
            tick.next += tick.period;
        }
    });
    flow::call(root, || guest::proxy_on_tick(root));
    flow::settle();
}

/// A timeout comes as an answer of Envoy's own.
fn time_out(token: u32) {
    let body = b"upstream request timeout".to_vec();
    let headers = Headers::from(&[
        (":status", "504"),
        ("content-length", "24"),
        ("content-type", "text/plain"),
    ]);
    deliver(
        token,
        Sent {
            headers,
            body,
            trailers: None,
            ended: true,
        },
    );
}

/// A callout belongs to the root, whoever dispatched it.
fn deliver(token: u32, answer: Sent) {
    let callout = host(|h| h.callouts.remove(&token));
    let root = callout
        .unwrap_or_else(|| panic!("no callout {token} waits"))
        .root;
    let sizes = (answer.headers.0.len(), answer.body.len());
    let trailers = answer
        .trailers
        .as_ref()
        .map_or(0, |trailers| trailers.0.len());
    host(|h| h.answer = Some(answer));
    flow::call(root, || {
        guest::proxy_on_http_call_response(root, token, sizes.0, sizes.1, trailers)
    });
    flow::settle();
}
