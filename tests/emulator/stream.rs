//! One HTTP stream, driven from both ends by a test.

use super::flow;
use super::host::host;
use super::state::*;
use proxy_wasm::types::Action;

/// A handle of one stream. What is sent into a stream that is answered or gone is dropped, as Envoy
/// does; the action is then Pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The context id.
    pub id: u32,
}

impl Stream {
    // The client's side.

    pub fn request_headers<V: AsRef<[u8]>>(&mut self, headers: &[(&str, V)], end: bool) -> Action {
        self.headers(Side::Request, Headers::from(headers), end)
    }

    pub fn request_body(&mut self, chunk: &[u8], end: bool) -> Action {
        self.body(Side::Request, chunk, end)
    }

    pub fn request_trailers<V: AsRef<[u8]>>(&mut self, trailers: &[(&str, V)]) -> Action {
        self.trailers(Side::Request, Headers::from(trailers))
    }

    /// Headers and a whole body, end of stream with the body (or the headers, where it is empty).
    pub fn request<V: AsRef<[u8]>>(&mut self, headers: &[(&str, V)], body: &[u8]) -> Action {
        let action = self.request_headers(headers, body.is_empty());
        if body.is_empty() {
            return action;
        }
        self.request_body(body, true)
    }

    /// Sends the request that the request filter let through into this attempt: the one shared header
    /// map, and a fresh copy of the body.
    pub fn request_of(&mut self, parent: &Stream) -> Action {
        let sent = parent.sent(Side::Request);
        let headers = self.read(|stream| stream.request_id);
        let headers = host(|h| h.requests[&headers].headers.clone());
        let bare = sent.body.is_empty() && sent.trailers.is_none();
        let mut action = self.headers(Side::Request, headers, bare);
        if !sent.body.is_empty() {
            action = self.body(Side::Request, &sent.body, sent.trailers.is_none());
        }
        match sent.trailers {
            Some(trailers) => self.trailers(Side::Request, trailers),
            None => action,
        }
    }

    /// The client goes away.
    pub fn disconnect(&mut self) {
        flow::finish(self.id);
        flow::settle();
    }

    /// Ends the stream where that has not happened by itself (it does once the answer is whole).
    pub fn finish(&mut self) {
        self.disconnect();
    }

    pub fn client_response(&self) -> Option<ClientResponse> {
        let reset = self.read(|stream| stream.reset);
        let sent = self.read(|stream| stream.response.sent.clone())?;
        Some(ClientResponse {
            status: sent
                .headers
                .get(":status")
                .map_or(0, |status| status.parse().unwrap_or(0)),
            headers: sent.headers,
            body: sent.body,
            trailers: sent.trailers,
            ended: sent.ended && !reset,
            reset,
        })
    }

    // The upstream's side.

    /// The request headers have gone on.
    pub fn request_released(&self) -> bool {
        self.read(|stream| stream.request.sent.is_some())
    }

    /// The whole request has gone on.
    pub fn request_complete(&self) -> bool {
        let ended = |sent: &Sent| sent.ended;
        self.read(|stream| stream.request.sent.as_ref().is_some_and(ended))
    }

    /// What went on to the upstream. Panics where nothing did.
    pub fn upstream_request_headers(&self) -> Headers {
        self.sent(Side::Request).headers
    }

    pub fn upstream_request_body(&self) -> Vec<u8> {
        self.sent(Side::Request).body
    }

    pub fn upstream_request_trailers(&self) -> Option<Headers> {
        self.sent(Side::Request).trailers
    }

    pub fn response_headers<V: AsRef<[u8]>>(&mut self, headers: &[(&str, V)], end: bool) -> Action {
        self.headers(Side::Response, Headers::from(headers), end)
    }

    pub fn response_body(&mut self, chunk: &[u8], end: bool) -> Action {
        self.body(Side::Response, chunk, end)
    }

    pub fn response_trailers<V: AsRef<[u8]>>(&mut self, trailers: &[(&str, V)]) -> Action {
        self.trailers(Side::Response, Headers::from(trailers))
    }

    /// Headers and a whole body, as [`Stream::request`].
    pub fn response<V: AsRef<[u8]>>(&mut self, headers: &[(&str, V)], body: &[u8]) -> Action {
        let action = self.response_headers(headers, body.is_empty());
        if body.is_empty() {
            return action;
        }
        self.response_body(body, true)
    }

    /// The upstream cuts its response: the client's stream ends there.
    pub fn upstream_reset(&mut self) {
        host(|h| h.streams.get_mut(&self.id).unwrap().reset = true);
        flow::settle();
    }

    // What Envoy knows of the stream.

    /// `value` is what the guest reads: text, or 8 bytes little-endian for a number.
    pub fn set_property(&mut self, path: &[&str], value: &[u8]) {
        let path = path.join("\0").into_bytes();
        host(|h| {
            let stream = h.streams.get_mut(&self.id).unwrap();
            stream.properties.insert(path, value.to_vec());
        });
    }

    /// Filter state by Envoy's name, `wasm.NAME`.
    pub fn filter_state(&self, key: &str) -> Option<Vec<u8>> {
        let request = self.read(|stream| stream.request_id);
        host(|h| {
            h.requests
                .get(&request)?
                .filter_state
                .get(key.as_bytes())
                .cloned()
        })
    }

    /// The filter has replied in place of the upstream.
    pub fn replied(&self) -> bool {
        self.read(|stream| stream.replied)
    }

    /// The stream has ended and the filter was told.
    pub fn gone(&self) -> bool {
        self.read(|stream| stream.gone)
    }

    fn headers(&self, side: Side, headers: Headers, end: bool) -> Action {
        let received = self.read(|stream| match side {
            Side::Request => stream.request.received,
            Side::Response => stream.response.received,
        });
        self.drive(|| {
            assert!(!received, "{side:?} headers twice");
            flow::on_headers(self.id, side, headers, end)
        })
    }

    fn body(&self, side: Side, chunk: &[u8], end: bool) -> Action {
        self.drive(|| {
            self.expect_open(side);
            flow::on_body(self.id, side, chunk, end)
        })
    }

    fn trailers(&self, side: Side, trailers: Headers) -> Action {
        self.drive(|| {
            self.expect_open(side);
            flow::on_trailers(self.id, side, trailers)
        })
    }

    fn drive(&self, step: impl FnOnce() -> Action) -> Action {
        if self.read(|stream| stream.gone || stream.replied || stream.reset) {
            return Action::Pause;
        }
        let action = step();
        flow::settle();
        action
    }

    fn expect_open(&self, side: Side) {
        let (received, ended) = host(|h| {
            let half = h.streams.get_mut(&self.id).unwrap().half(side);
            (half.received, half.ended)
        });
        assert!(received, "{side:?} without headers");
        assert!(!ended, "{side:?} goes on after its end");
    }

    fn sent(&self, side: Side) -> Sent {
        let sent = host(|h| h.streams.get_mut(&self.id).unwrap().half(side).sent.clone());
        sent.unwrap_or_else(|| panic!("the {side:?} has not been released"))
    }

    fn read<R>(&self, f: impl FnOnce(&StreamState) -> R) -> R {
        host(|h| f(&h.streams[&self.id]))
    }
}
