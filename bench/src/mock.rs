//! A model service that costs next to nothing: its answer is ready made, and what it does is told beforehand, so that it
//! reads no request.

use std::convert::Infallible;
use std::io;
use std::ops::Add;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Interval, interval_at};

use crate::clock;

/// Stands before the time of writing in each chunk.
pub const STAMP: u8 = b'@';
/// How many digits follow it.
pub const STAMP_DIGITS: usize = 19;

/// What a service does with each request.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// `200` with about 1 kB.
    #[default]
    Answer,
    /// `503`.
    Fail,
    /// `200`, and this many chunks, one each `gap_us` microseconds (not 0).
    Stream { chunks: u32, gap_us: u64 },
    /// `200`, and then a chunk each second, until it plays another part.
    Hold,
    /// `200`, and then nothing.
    Silent,
}

/// A running service.
pub struct Mock {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    script: Arc<Script>,
}

struct Script {
    name: &'static str,
    part: Mutex<Part>,
    answer: Bytes,
}

impl Mock {
    /// Starts a service that says its name in its answers.
    pub async fn start(name: &'static str) -> io::Result<Mock> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let script = Arc::new(Script {
            name,
            part: Mutex::default(),
            answer: whole_answer(name),
        });
        tokio::spawn(accept(listener, Arc::clone(&script)));
        Ok(Mock { port, script })
    }

    /// Plays this part from now on.
    pub fn play(&self, part: Part) {
        *self.script.part.lock().expect("no panic while held") = part;
    }
}

async fn accept(listener: TcpListener, script: Arc<Script>) {
    while let Ok((connection, _)) = listener.accept().await {
        tokio::spawn(serve(connection, Arc::clone(&script)));
    }
}

async fn serve(connection: TcpStream, script: Arc<Script>) {
    let _ = connection.set_nodelay(true);
    let service = service_fn(|request| answer(request, &script));
    // A gateway may close a connection at any time.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(connection), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    script: &Arc<Script>,
) -> Result<Response<Answer>, hyper::Error> {
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    let (status, content_type, body) = script.next_answer();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

impl Script {
    fn part(&self) -> Part {
        *self.part.lock().expect("no panic while held")
    }

    fn next_answer(self: &Arc<Self>) -> (StatusCode, &'static str, Answer) {
        let (ok, json, sse) = (StatusCode::OK, "application/json", "text/event-stream");
        match self.part() {
            Part::Answer => (ok, json, Answer::Whole(Some(self.answer.clone()))),
            Part::Fail => (
                StatusCode::SERVICE_UNAVAILABLE,
                json,
                Answer::Whole(Some(Bytes::from_static(FAILURE))),
            ),
            Part::Stream { chunks, gap_us } => (
                ok,
                sse,
                self.stream(Some(chunks), Duration::from_micros(gap_us)),
            ),
            Part::Hold => (ok, sse, self.stream(None, Duration::from_secs(1))),
            Part::Silent => (ok, sse, Answer::Never),
        }
    }

    fn stream(self: &Arc<Self>, left: Option<u32>, gap: Duration) -> Answer {
        Answer::Stream(Stream {
            script: Arc::clone(self),
            left,
            ticks: interval_at(Instant::now() + gap, gap),
            begun: false,
        })
    }
}

/// The body of an answer.
enum Answer {
    Whole(Option<Bytes>),
    Stream(Stream),
    Never,
}

struct Stream {
    script: Arc<Script>,
    /// Chunks to come. `None`: until the script says otherwise.
    left: Option<u32>,
    ticks: Interval,
    begun: bool,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Answer::Whole(bytes) => bytes.take(),
            Answer::Stream(stream) => ready!(stream.poll_chunk(context)),
            Answer::Never => return Poll::Pending,
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Answer::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            _ => SizeHint::default(),
        }
    }
}

impl Stream {
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.left == Some(0) {
            return Poll::Ready(None);
        }
        // The first comes at once. The timer would take up to a millisecond for that.
        if self.begun {
            ready!(self.ticks.poll_tick(context));
        }
        self.begun = true;
        self.left = match self.left {
            None if matches!(self.script.part(), Part::Hold) => None,
            None => Some(0),
            Some(left) => Some(left - 1),
        };
        let is_last = self.left == Some(0);
        Poll::Ready(Some(chunk(self.script.name, is_last)))
    }
}

fn chunk(name: &str, is_last: bool) -> Bytes {
    let now = clock::now();
    let end = if is_last { "data: [DONE]\n\n" } else { "" };
    format!(
        r#"data: {{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"mock","choices":[{{"index":0,"delta":{{"content":"from {name} @{now:0STAMP_DIGITS$}"}},"finish_reason":null}}]}}"#
    )
    .add("\n\n")
    .add(end)
    .into()
}

fn whole_answer(name: &str) -> Bytes {
    let text = "All happy families are alike. ".repeat(26);
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"mock","choices":[{{"index":0,"message":{{"role":"assistant","content":"from {name}: {text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":10,"completion_tokens":200,"total_tokens":210}}}}"#
    )
    .into()
}

const FAILURE: &[u8] =
    br#"{"error":{"message":"overloaded","type":"server_error","param":null,"code":null}}"#;
