//! The clients.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use memchr::{memchr, memmem};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::clock;
use crate::mock::{Part, STAMP, STAMP_DIGITS};
use crate::prompt;

/// What to do, and what the services do meanwhile.
#[derive(Deserialize)]
pub struct Command {
    #[serde(flatten)]
    task: Task,
    /// Gateways, all at the same time.
    targets: Vec<Target>,
    #[serde(default)]
    request: Shape,
    /// The part of the primary.
    #[serde(default)]
    pub primary: Part,
    /// The part of the fallback service.
    #[serde(default)]
    pub fallback: Part,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Task {
    /// As many requests as the gateways can take, over this many connections to each.
    Saturate { connections: usize, millis: u64 },
    /// One request at a time, to one gateway after the other in random order; no more than this many for each in a second.
    Pace { per_second: u64, millis: u64 },
    /// This many at once, one from each connection, each timed chunk by chunk.
    Stream { streams: usize },
    /// This many at once, left open until [`Task::Release`].
    Hold { streams: usize, millis: u64 },
    /// The end of those.
    Release,
}

/// Where requests go.
#[derive(Clone, Deserialize)]
struct Target {
    name: String,
    port: u16,
    path: String,
    model: String,
}

#[derive(Clone, Deserialize)]
#[serde(default)]
struct Shape {
    /// Bytes of the body.
    size: usize,
    stream: bool,
    /// The status of each answer; another one is an error.
    status: u16,
    /// What each answer says in its first part; without it is an error.
    says: String,
    /// An answer that takes longer is an error.
    limit_ms: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            size: 1000,
            stream: false,
            status: 200,
            says: String::new(),
            limit_ms: 20_000,
        }
    }
}

/// The clients, and what they keep from one command to the next.
#[derive(Default)]
pub struct Load {
    idle: HashMap<u16, Vec<Connection>>,
    held: JoinSet<()>,
}

const RELEASE_LIMIT: Duration = Duration::from_secs(5);

type Connection = SendRequest<Full<Bytes>>;
type Failure = Box<dyn Error + Send + Sync>;

impl Load {
    /// Does what the command says.
    pub async fn run(&mut self, command: Command) -> Value {
        let jobs = command.targets.into_iter().map(|target| {
            let Shape { size, stream, .. } = command.request;
            let body = prompt::chat(&target.model, stream, size).into();
            Job {
                shape: command.request.clone(),
                target,
                body,
            }
        });
        let jobs: Vec<Job> = jobs.collect();
        match command.task {
            Task::Saturate {
                connections,
                millis,
            } => self.saturate(jobs, connections, millis).await,
            Task::Pace { per_second, millis } => self.pace(jobs, per_second, millis).await,
            Task::Stream { streams } => self.stream(jobs, streams).await,
            Task::Hold { streams, millis } => self.hold(jobs, streams, millis).await,
            Task::Release => self.release().await,
        }
    }

    async fn saturate(&mut self, jobs: Vec<Job>, connections: usize, millis: u64) -> Value {
        let start = Instant::now();
        let end = start + Duration::from_millis(millis);
        let mut workers = JoinSet::new();
        for job in &jobs {
            for _ in 0..connections {
                let client = self.client(job);
                workers.spawn(client.repeat_until(end));
            }
        }
        let mut counts: HashMap<String, Count> = HashMap::new();
        while let Some(Ok((client, done, failed))) = workers.join_next().await {
            let count = counts.entry(client.job.target.name.clone()).or_default();
            count.done += done;
            count.failed += failed;
            count.took = nanos(start.elapsed());
            self.keep(client);
        }
        json!(counts)
    }

    async fn pace(&mut self, jobs: Vec<Job>, per_second: u64, millis: u64) -> Value {
        let start = Instant::now();
        let cycle = Duration::from_secs(1) / u32::try_from(per_second).unwrap_or(u32::MAX);
        let mut clients: Vec<_> = jobs
            .iter()
            .map(|job| (self.client(job), Paced::default()))
            .collect();
        let mut random = 1_u64;
        let mut next = start;
        while start.elapsed() < Duration::from_millis(millis) {
            for unshuffled in (1..clients.len()).rev() {
                // The generator of Numerical Recipes, its upper bits: good enough to mix the order.
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) % (1 << 32);
                clients.swap(unshuffled, (random >> 16) as usize % (unshuffled + 1));
            }
            for (client, paced) in &mut clients {
                let sent = clock::now();
                match client.ask(|_| ()).await {
                    Ok(()) => paced.times.push(clock::now() - sent),
                    Err(_) => paced.failed += 1,
                }
            }
            next = (next + cycle).max(Instant::now());
            sleep_until(next).await;
        }
        let mut result = HashMap::new();
        for (client, paced) in clients {
            result.insert(client.job.target.name.clone(), paced);
            self.keep(client);
        }
        json!(result)
    }

    async fn stream(&mut self, jobs: Vec<Job>, streams: usize) -> Value {
        let mut workers = JoinSet::new();
        for job in &jobs {
            for number in 0..streams {
                let client = self.client(job);
                // Neither the requests nor the chunks all at the same moment.
                let start = Instant::now() + Duration::from_millis(number as u64 * 37);
                workers.spawn(client.time_chunks(start));
            }
        }
        let mut result: HashMap<String, Timed> = HashMap::new();
        while let Some(Ok((client, timed))) = workers.join_next().await {
            let sum = result.entry(client.job.target.name.clone()).or_default();
            sum.first.extend(timed.first);
            sum.delays.extend(timed.delays);
            sum.failed += timed.failed;
            self.keep(client);
        }
        json!(result)
    }

    async fn hold(&mut self, jobs: Vec<Job>, streams: usize, millis: u64) -> Value {
        let end = Instant::now() + Duration::from_millis(millis);
        let (opened, mut open) = mpsc::unbounded_channel();
        for job in &jobs {
            for _ in 0..streams {
                let mut client = self.client(job);
                let opened = opened.clone();
                self.held.spawn(async move {
                    // Each tells once, at its first chunk.
                    let mut opened = Some(opened);
                    let _ = client
                        .ask(|_| {
                            if let Some(opened) = opened.take() {
                                let _ = opened.send(());
                            }
                        })
                        .await;
                });
                // Not more at once than a listener's backlog.
                if self.held.len().is_multiple_of(100) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        drop(opened);
        let mut count = 0;
        while let Ok(Some(())) = timeout_at(end, open.recv()).await {
            count += 1;
        }
        json!({"open": count})
    }

    async fn release(&mut self) -> Value {
        let all_ended = async { while self.held.join_next().await.is_some() {} };
        let in_time = timeout(RELEASE_LIMIT, all_ended).await.is_ok();
        // Those that are left were not even begun by their gateway.
        self.held.shutdown().await;
        json!({"in_time": in_time})
    }

    fn client(&mut self, job: &Job) -> Client {
        let idle = self.idle.entry(job.target.port).or_default();
        Client {
            job: job.clone(),
            connection: idle.pop().filter(|connection| !connection.is_closed()),
        }
    }

    fn keep(&mut self, client: Client) {
        let idle = self.idle.entry(client.job.target.port).or_default();
        idle.extend(client.connection);
    }
}

#[derive(Clone)]
struct Job {
    target: Target,
    shape: Shape,
    body: Bytes,
}

/// One client with a connection of its own.
struct Client {
    job: Job,
    connection: Option<Connection>,
}

/// The result of [`Task::Saturate`] for a gateway.
#[derive(Default, Serialize)]
struct Count {
    done: u64,
    failed: u64,
    /// How long it was, up to the end of the last request.
    took: u64,
}

/// The result of [`Task::Pace`] for a gateway.
#[derive(Default, Serialize)]
struct Paced {
    times: Vec<u64>,
    failed: u64,
}

/// The result of [`Task::Stream`] for a gateway.
#[derive(Default, Serialize)]
struct Timed {
    /// From the request to the first chunk.
    first: Vec<u64>,
    /// Of each chunk, from the service to the client.
    delays: Vec<u64>,
    failed: u64,
}

impl Client {
    async fn repeat_until(mut self, end: Instant) -> (Client, u64, u64) {
        let (mut done, mut failed) = (0, 0);
        while Instant::now() < end {
            match self.ask(|_| ()).await {
                Ok(()) => done += 1,
                Err(_) => failed += 1,
            }
        }
        (self, done, failed)
    }

    async fn time_chunks(mut self, start: Instant) -> (Client, Timed) {
        sleep_until(start).await;
        let mut timed = Timed::default();
        let mut stamps = Stamps::default();
        let sent = clock::now();
        let asked = self.ask(|bytes| {
            let now = clock::now();
            for written in stamps.read(bytes) {
                if timed.first.is_empty() {
                    timed.first.push(now - sent);
                }
                timed.delays.push(now.saturating_sub(written));
            }
        });
        if asked.await.is_err() {
            timed.failed = 1;
        }
        (self, timed)
    }

    /// One request and its whole answer, and each part of that as it comes. A failure costs a moment, so that a gateway
    /// that is down is not hammered.
    async fn ask(&mut self, on_part: impl FnMut(&[u8])) -> Result<(), Failure> {
        let limit = Duration::from_millis(self.job.shape.limit_ms);
        let result = match timeout(limit, self.try_ask(on_part)).await {
            Ok(result) => result,
            Err(late) => Err(late.into()),
        };
        if result.is_err() {
            self.connection = None;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        result
    }

    async fn try_ask(&mut self, mut on_part: impl FnMut(&[u8])) -> Result<(), Failure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(self.job.target.port).await?,
        };
        connection.ready().await?;
        let response = connection.send_request(self.job.request()?).await?;
        let (head, mut body) = response.into_parts();
        let shape = &self.job.shape;
        let mut says = shape.says.is_empty();
        while let Some(frame) = body.frame().await {
            if let Some(bytes) = frame?.data_ref() {
                says = says || memmem::find(bytes, shape.says.as_bytes()).is_some();
                on_part(bytes);
            }
        }
        self.connection = Some(connection);
        if head.status != StatusCode::from_u16(shape.status)? {
            return Err(format!("status {}", head.status).into());
        }
        if !says {
            return Err(format!("an answer without {:?}", shape.says).into());
        }
        Ok(())
    }
}

impl Job {
    fn request(&self) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        Request::post(self.target.path.as_str())
            .header("host", "gateway.example.com")
            .header("user-agent", "OpenAI/Python 1.99.0")
            .header("accept", "application/json")
            .header("authorization", "Bearer sk-0123456789abcdef0123456789")
            .header("content-type", "application/json")
            // For a gateway that cannot see it in the body.
            .header("x-model", self.target.model.as_str())
            .body(Full::new(self.body.clone()))
    }
}

async fn connect(port: u16) -> Result<Connection, Failure> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (connection, io) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(io);
    Ok(connection)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Finds the times of writing in a stream, however it is cut.
#[derive(Default)]
struct Stamps {
    rest: Vec<u8>,
}

impl Stamps {
    fn read(&mut self, bytes: &[u8]) -> Vec<u64> {
        self.rest.extend_from_slice(bytes);
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(start) = memchr(STAMP, &self.rest[at..]) {
            let digits = at + start + 1;
            let Some(digits) = self.rest.get(digits..digits + STAMP_DIGITS) else {
                break;
            };
            let digits = std::str::from_utf8(digits).unwrap_or_default();
            found.extend(digits.parse::<u64>());
            at += start + 1 + STAMP_DIGITS;
        }
        let keep = memchr(STAMP, &self.rest[at..]).map_or(self.rest.len(), |start| at + start);
        self.rest.drain(..keep);
        found
    }
}
