//! An answer's body as a list of steps, and the code that plays it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::io::Write;
use std::iter;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::HeaderMap;
use hyper::body::Frame;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::record::{Ended, Exchange};
use super::server::Fuse;
use super::spec::{Comments, Spec, Then};

/// Between fillers where the spec gives no `gap`.
const FILLER_GAP: Duration = Duration::from_millis(50);

/// Before a reset or cut: hyper flushes the bytes before when the body makes it wait, and the
/// client can read them before a reset discards them.
const BREAK_PAUSE: Duration = Duration::from_millis(50);

pub type Body = UnsyncBoxBody<Bytes, Broken>;

/// The exchange was broken on purpose.
#[derive(Debug)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("broken on purpose")
    }
}

impl std::error::Error for Broken {}

impl From<Infallible> for Broken {
    fn from(never: Infallible) -> Broken {
        match never {}
    }
}

pub enum Step {
    Chunk(Bytes),
    Filler(Bytes),
    /// The last bytes of a compressed body.
    Finish,
    Trailers(HeaderMap),
    Wait(Duration),
    Gate,
    Break(Ended),
    Stall,
    Forever(Bytes, Duration),
}

/// What the steps of a body are made of.
pub struct Parts {
    pub chunks: Vec<Bytes>,
    /// What an error in the middle looks like.
    pub error: Bytes,
    /// A byte string that clients of this body skip.
    pub filler: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// The steps that a spec asks for.
pub fn steps(spec: &Spec, parts: Parts) -> VecDeque<Step> {
    let total = parts.chunks.len();
    // Later than the last chunk is after the last chunk.
    let gate = spec.gate.map(|gate| gate.min(total));
    let then = spec.then.map(|(after, then)| (after.min(total), then));
    let gap = spec.gap.unwrap_or(FILLER_GAP);

    let mut steps = lead(spec, &parts.filler, gap);
    let chunks = parts.chunks.into_iter().map(Some);
    for (sent, chunk) in chunks.chain(iter::once(None)).enumerate() {
        if gate == Some(sent) {
            steps.push_back(Step::Gate);
        }
        if let Some((_, then)) = then.filter(|(after, _)| *after == sent) {
            steps.extend(last(then, parts.error, parts.filler, gap));
            steps.extend(spec.gzip.then_some(Step::Finish));
            return steps;
        }
        let Some(chunk) = chunk else { break };
        if let Some(gap) = spec.gap.filter(|_| sent > 0) {
            steps.push_back(Step::Wait(gap));
        }
        steps.push_back(Step::Chunk(chunk));
    }
    steps.extend((spec.gzip && total > 0).then_some(Step::Finish));
    steps.extend(parts.trailers.map(Step::Trailers));
    steps
}

fn lead(spec: &Spec, filler: &Bytes, gap: Duration) -> VecDeque<Step> {
    let mut steps = VecDeque::new();
    if !spec.first.is_zero() {
        steps.push_back(Step::Wait(spec.first));
    }
    match spec.comments {
        None => {}
        Some(Comments::Forever) => steps.push_back(Step::Forever(filler.clone(), gap)),
        Some(Comments::Some(count)) => {
            let one = || [Step::Filler(filler.clone()), Step::Wait(gap)];
            steps.extend(iter::repeat_with(one).take(count).flatten());
        }
    }
    steps
}

fn last(then: Then, error: Bytes, filler: Bytes, gap: Duration) -> Vec<Step> {
    let pause = Step::Wait(BREAK_PAUSE);
    match then {
        Then::Reset => vec![pause, Step::Break(Ended::Reset)],
        Then::Cut => vec![pause, Step::Break(Ended::Cut)],
        Then::Stall => vec![Step::Stall],
        Then::Endless => vec![Step::Forever(filler, gap)],
        Then::Error => vec![Step::Chunk(error)],
        Then::End => vec![],
    }
}

/// A body that plays `steps`, packed with gzip where asked, and records how far it came.
pub fn play(
    gzip: bool,
    steps: VecDeque<Step>,
    exchange: Exchange,
    gate: Arc<Semaphore>,
    fuse: Fuse,
) -> Body {
    let player = Player {
        packer: gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast())),
        steps,
        exchange,
        gate,
        fuse,
    };
    player.note_end();
    let frames = stream::unfold(player, |mut player| async {
        let frame = player.frame().await?;
        Some((frame, player))
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// A body that is not recorded.
pub fn plain(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(Broken::from).boxed_unsync()
}

struct Player {
    packer: Option<GzEncoder<Vec<u8>>>,
    steps: VecDeque<Step>,
    exchange: Exchange,
    gate: Arc<Semaphore>,
    fuse: Fuse,
}

impl Player {
    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, Broken>> {
        loop {
            let Some(step) = self.steps.pop_front() else {
                self.note_end();
                return None;
            };
            let frame = match step {
                Step::Chunk(data) => {
                    self.exchange.chunk_sent();
                    Frame::data(self.pack(data))
                }
                Step::Filler(data) => Frame::data(self.pack(data)),
                Step::Finish => Frame::data(self.finish()),
                Step::Trailers(trailers) => Frame::trailers(trailers),
                Step::Wait(time) => {
                    sleep(time).await;
                    continue;
                }
                Step::Gate => {
                    pass(&self.gate).await;
                    continue;
                }
                Step::Break(how) => return Some(Err(self.snap(how))),
                Step::Stall => pending().await,
                Step::Forever(filler, gap) => {
                    self.steps.push_front(Step::Forever(filler.clone(), gap));
                    self.steps.push_front(Step::Wait(gap));
                    Frame::data(self.pack(filler))
                }
            };
            self.note_end();
            return Some(Ok(frame));
        }
    }

    /// Each chunk can be unpacked before the next one comes.
    fn pack(&mut self, data: Bytes) -> Bytes {
        let Some(packer) = &mut self.packer else {
            return data;
        };
        packer.write_all(&data).expect("memory");
        packer.flush().expect("memory");
        mem::take(packer.get_mut()).into()
    }

    fn finish(&mut self) -> Bytes {
        let packer = self.packer.take();
        packer.map_or_else(Bytes::new, |packer| packer.finish().expect("memory").into())
    }

    /// hyper may not ask again after the last byte, so that is where the end is.
    fn note_end(&self) {
        if self.steps.is_empty() {
            self.exchange.end(Ended::Completed);
        }
    }

    fn snap(&self, how: Ended) -> Broken {
        self.exchange.end(how);
        if how == Ended::Reset {
            self.fuse.blow();
        }
        Broken
    }
}

/// Waits until the gate is opened, once for each opening.
pub async fn pass(gate: &Semaphore) {
    gate.acquire().await.expect("never closed").forget();
}
