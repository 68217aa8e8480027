//! A stream that comes by fallback, in both dispatch modes side by side: when its chunks reach the client.

use std::error::Error;
use std::time::{Duration, Instant};

use crate::ask::{Answer, Client};
use crate::check::{self, Tally};
use crate::mock::Mock;
use crate::rows::{CHUNKS, COMPARED, DIRECT, Row};
use crate::stack::{Dispatch, Stack};
use crate::table::Table;

/// The service that streams.
const STREAMER: &str = "qwen";

/// One stream.
pub struct Streamed {
    /// Who brought it to the client.
    pub by: &'static str,
    /// When each chunk was at the client, after the service had begun to send the first.
    pub chunks: Vec<Duration>,
    pub problems: Vec<String>,
}

impl Streamed {
    /// The median and the longest of the times between two chunks; zero where there are fewer.
    pub fn spacing(&self) -> (Duration, Duration) {
        let pairs = self.chunks.iter().zip(self.chunks.iter().skip(1));
        let mut gaps: Vec<Duration> = pairs.map(|(one, next)| *next - *one).collect();
        gaps.sort();
        let at = |nth: usize| gaps.get(nth).copied().unwrap_or_default();
        (at(gaps.len() / 2), at(gaps.len().saturating_sub(1)))
    }
}

/// Asks for each stream in each mode, and once without a gateway.
pub async fn run(stacks: &[Stack], table: &Table) -> Result<Tally, Box<dyn Error>> {
    let mut tally = Tally::default();
    table.comparison();
    for (row, number) in COMPARED.iter().zip(1..) {
        let mut streams = Vec::new();
        for stack in stacks {
            let (answer, stream) = by_fallback(stack, row, &format!("stream-{number}")).await?;
            tally.add(&answer, &stream.problems);
            streams.push(stream);
        }
        table.compared(row.wrong, &streams);
    }
    if let Some(stack) = stacks.first() {
        let (answer, stream) = direct(stack).await?;
        tally.add(&answer, &stream.problems);
        table.compared(DIRECT.wrong, &[stream]);
    }
    Ok(tally)
}

async fn by_fallback(
    stack: &Stack,
    row: &Row,
    id: &str,
) -> Result<(Answer, Streamed), Box<dyn Error>> {
    let answer = Client::new(stack)?.ask(row, id).await;
    // A callout brings its answer whole; that is what this shows.
    let row = Row {
        live: Some(stack.dispatch == Dispatch::Router),
        ..*row
    };
    let mut stream = streamed(stack.dispatch.name(), stack, &answer, id);
    stream
        .problems
        .extend(check::problems(&row, &answer, stack, id));
    Ok((answer, stream))
}

async fn direct(stack: &Stack) -> Result<(Answer, Streamed), Box<dyn Error>> {
    let id = "stream-direct";
    let url = streamer(stack).ok_or("no such service")?.url("");
    let answer = Client::of(url)?.ask(&DIRECT, id).await;
    let stream = streamed("-", stack, &answer, id);
    Ok((answer, stream))
}

fn streamed(by: &'static str, stack: &Stack, answer: &Answer, id: &str) -> Streamed {
    let began = began(stack, id);
    let chunks = answer.events_at.iter();
    let since = |at: &Instant| began.map_or(Duration::ZERO, |began| *at - began);
    let got = answer.events_at.len();
    let problem = (got != CHUNKS).then(|| format!("chunks: expected {CHUNKS}, got {got}"));
    Streamed {
        by,
        chunks: chunks.map(since).collect(),
        problems: problem.into_iter().collect(),
    }
}

/// When the service began to send its first chunk.
fn began(stack: &Stack, id: &str) -> Option<Instant> {
    let received = streamer(stack)?.requests_with(id);
    received.first()?.first_chunk_at
}

fn streamer(stack: &Stack) -> Option<&Mock> {
    stack.services.iter().find(|mock| mock.name() == STREAMER)
}
