//! How headers, bodies, trailers, replies and ends move through a stream, in Envoy's order.

use super::abi::guest;
use super::host::{Deferred, host};
use super::state::*;
use proxy_wasm::types::Action;
use std::mem::take;

/// What a callback left behind.
pub struct Left<R> {
    pub result: R,
    /// A reply or a reset was asked for: Envoy takes any answer of the callback as Pause.
    stopped: bool,
    resumed: Vec<(u32, Side)>,
}

/// What a callback said, and whether all that is held goes on.
struct Verdict {
    action: Action,
    releases: bool,
    /// Seen: after a reply Envoy buffers nothing of what the callback has brought.
    drops: bool,
}

/// Calls into the guest as `context`, then does what it deferred.
pub fn call<R>(context: u32, guest: impl FnOnce() -> R) -> Left<R> {
    host(|h| {
        assert_eq!(h.active, 0, "the SDK cannot be entered again");
        (h.active, h.effective) = (context, context);
    });
    let result = guest();
    let (stopped, deferred) = host(|h| {
        (h.active, h.effective, h.answer) = (0, 0, None);
        (take(&mut h.stop_iteration), take(&mut h.deferred))
    });
    let mut resumed = Vec::new();
    for (context, action) in deferred {
        match action {
            Deferred::Resume(side) => {
                resumed.push((context, side));
                resume(context, side);
            }
            Deferred::Reply(reply) => {
                if resumed.contains(&(context, Side::Request)) {
                    host(|h| h.violate("resumed the request and replied in one callback"));
                }
                send_reply(context, reply);
            }
            Deferred::Reset => with_stream(context, |_, stream| stream.reset = true),
        }
    }
    Left {
        result,
        stopped,
        resumed,
    }
}

pub fn on_headers(id: u32, side: Side, headers: Headers, end: bool) -> Action {
    let count = headers.0.len();
    with_half(id, side, |half| {
        half.headers = headers;
        half.ended = end;
        (half.received, half.headers_live) = (true, true);
    });
    let verdict = verdict(id, side, || match side {
        Side::Request => guest::proxy_on_request_headers(id, count, end),
        Side::Response => guest::proxy_on_response_headers(id, count, end),
    });
    if verdict.action == Action::Continue {
        with_half(id, side, |half| half.headers_live = false);
    }
    if verdict.releases {
        release(id, side);
    }
    verdict.action
}

pub fn on_body(id: u32, side: Side, chunk: &[u8], end: bool) -> Action {
    let mut size = 0;
    with_half(id, side, |half| {
        half.ended |= end;
        match half.window {
            Window::Held => half.held.extend(chunk),
            _ => (half.window, half.chunk) = (Window::Chunk, chunk.to_vec()),
        }
        size = half.body().map_or(0, |body| body.len());
    });
    let verdict = verdict(id, side, || match side {
        Side::Request => guest::proxy_on_request_body(id, size, end),
        Side::Response => guest::proxy_on_response_body(id, size, end),
    });
    with_half(id, side, |half| {
        if verdict.drops {
            half.chunk.clear();
            half.window = Window::None;
            return;
        }
        half.held.append(&mut half.chunk);
        half.window = match verdict.action {
            Action::Continue => Window::None,
            _ => Window::Held,
        };
    });
    if verdict.releases {
        release(id, side);
    }
    refuse_too_large(id, side);
    verdict.action
}

pub fn on_trailers(id: u32, side: Side, trailers: Headers) -> Action {
    let count = trailers.0.len();
    with_half(id, side, |half| {
        half.trailers = Some(trailers);
        (half.trailers_live, half.ended) = (true, true);
    });
    let verdict = verdict(id, side, || match side {
        Side::Request => guest::proxy_on_request_trailers(id, count),
        Side::Response => guest::proxy_on_response_trailers(id, count),
    });
    if verdict.action == Action::Continue {
        with_half(id, side, |half| half.trailers_live = false);
    }
    if verdict.releases {
        release(id, side);
    }
    verdict.action
}

/// Ends streams whose answer has gone out whole, or that were cut.
pub fn settle() {
    let done = |stream: &StreamState| {
        stream.reset || stream.response.sent.as_ref().is_some_and(|sent| sent.ended)
    };
    let ended = host(|h| {
        let ended = h.streams.iter().filter(|(_, stream)| done(stream));
        ended.map(|(id, _)| *id).collect::<Vec<_>>()
    });
    ended.into_iter().for_each(finish);
}

/// The end of a stream: log, done, delete. Nothing happens the second time.
pub fn finish(id: u32) {
    let mut first = false;
    with_stream(id, |_, stream| first = !stream.finishing);
    if !first {
        return;
    }
    with_stream(id, |_, stream| {
        (stream.finishing, stream.logging) = (true, true)
    });
    call(id, || guest::proxy_on_log(id));
    with_stream(id, |_, stream| stream.logging = false);
    call(id, || guest::proxy_on_done(id));
    call(id, || guest::proxy_on_delete(id));
    with_stream(id, |_, stream| stream.gone = true);
    host(|h| {
        if h.callouts_end_with_streams {
            h.callouts.retain(|_, callout| callout.stream != Some(id));
        }
    });
}

fn verdict(id: u32, side: Side, guest: impl FnOnce() -> Action) -> Verdict {
    let left = call(id, guest);
    let action = match left.stopped {
        true => Action::Pause,
        false => left.result,
    };
    // Seen: a Pause in the callback that also resumes does not hold.
    let releases = action == Action::Continue || left.resumed.contains(&(id, side));
    Verdict {
        action,
        releases,
        drops: left.stopped,
    }
}

fn with_stream(id: u32, f: impl FnOnce(&mut Vec<String>, &mut StreamState)) {
    host(|h| {
        let stream = h.streams.get_mut(&id).filter(|stream| !stream.gone);
        if let Some(stream) = stream {
            f(&mut h.violations, stream);
        }
    });
}

fn with_half(id: u32, side: Side, f: impl FnOnce(&mut Half)) {
    with_stream(id, |_, stream| f(stream.half(side)));
}

fn resume(id: u32, side: Side) {
    with_stream(id, |violations, stream| {
        let answered = stream.response.sent.as_ref().is_some_and(|sent| sent.ended);
        if stream.replied && (side == Side::Request || answered) {
            violations.push(format!("{side:?} resumed after a reply"));
        }
    });
    release(id, side);
}

fn send_reply(id: u32, reply: Sent) {
    let pass = host(|h| h.held_replies_pass_callbacks);
    let mut through = None;
    with_stream(id, |violations, stream| {
        if stream.finishing {
            return;
        }
        if std::mem::replace(&mut stream.replied, true) {
            return violations.push("a second reply".into());
        }
        if stream.response.sent.is_some() {
            stream.reset = true;
            return violations.push("a reply after the response had begun: reset".into());
        }
        let held = stream.response.received;
        stream.response = Half::default();
        if !held || pass {
            through = Some(reply);
            return;
        }
        // Seen: a reply in place of held response headers passes no filter.
        stream.response.headers = reply.headers.clone();
        stream.response.headers_live = true;
        stream.response.sent = Some(Sent {
            ended: true,
            ..reply
        });
    });
    let Some(reply) = through else { return };
    on_headers(id, Side::Response, reply.headers, reply.body.is_empty());
    if !reply.body.is_empty() {
        on_body(id, Side::Response, &reply.body, true);
    }
}

fn release(id: u32, side: Side) {
    host(|h| {
        let Some(stream) = h.streams.get_mut(&id).filter(|stream| !stream.reset) else {
            return;
        };
        let request = stream.request_id;
        let half = stream.half(side);
        half.release();
        let Some(sent) = &half.sent else { return };
        let complaint = complaint(side, sent, half.body_changed);
        if side == Side::Request {
            h.requests.entry(request).or_default().headers = sent.headers.clone();
        }
        h.violations.extend(complaint);
    });
}

/// What is wrong with a message that goes on.
fn complaint(side: Side, sent: &Sent, body_changed: bool) -> Option<String> {
    let needed: &[&str] = match side {
        Side::Request => &[":method", ":path", ":authority"],
        Side::Response => &[":status"],
    };
    let missing = needed.iter().find(|name| !sent.headers.has(name));
    if let Some(name) = missing {
        return Some(format!("{side:?} released without {name}"));
    }
    let length = sent.headers.get("content-length")?;
    let wrong = sent.ended && body_changed && length != sent.body.len().to_string();
    wrong.then(|| {
        format!(
            "{side:?} has {} bytes, content-length {length}",
            sent.body.len()
        )
    })
}

/// Seen: Envoy answers 413 after the callback that was shown more than the buffer may hold.
fn refuse_too_large(id: u32, side: Side) {
    let large = host(|h| {
        let limit = h.buffer_limit;
        let stream = h.streams.get(&id).filter(|stream| !stream.replied);
        side == Side::Request && stream.is_some_and(|stream| stream.request.held.len() > limit)
    });
    if !large {
        return;
    }
    let headers = Headers::from(&[
        (":status", "413"),
        ("content-length", "17"),
        ("content-type", "text/plain"),
    ]);
    let body = b"Payload Too Large".to_vec();
    send_reply(
        id,
        Sent {
            headers,
            body,
            ..Sent::default()
        },
    );
}
