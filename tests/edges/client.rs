//! An HTTP/1.1 client that sends exactly the bytes it is told to, however wrong they are.

use crate::support::LIMIT;
use serde_json::Value;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A request head under construction. Asks for the connection to be closed after the answer.
pub struct Request(Vec<u8>);

impl Request {
    pub fn new(method: &str, path: impl AsRef<[u8]>) -> Request {
        let parts: [&[u8]; 4] = [method.as_bytes(), b" ", path.as_ref(), b" HTTP/1.1\r\n"];
        Request(parts.concat())
            .header("host", "gateway.test")
            .header("connection", "close")
    }

    /// A `POST` of JSON whose `x-test-id` is `id`.
    pub fn json(path: impl AsRef<[u8]>, id: &str) -> Request {
        Request::new("POST", path)
            .header("content-type", "application/json")
            .header("x-test-id", id)
    }

    /// A chat request whose `x-test-id` is `id`.
    pub fn chat(id: &str) -> Request {
        Request::json("/v1/chat/completions", id)
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Request {
        let parts: [&[u8]; 4] = [name.as_bytes(), b": ", value.as_ref(), b"\r\n"];
        self.0.extend(parts.concat());
        self
    }

    /// The head as it is, without anything about a body.
    pub fn head(mut self) -> Vec<u8> {
        self.0.extend(b"\r\n");
        self.0
    }

    /// The whole request, with its `content-length`.
    pub fn body(self, body: impl AsRef<[u8]>) -> Vec<u8> {
        let body = body.as_ref();
        let head = self.header("content-length", body.len().to_string()).head();
        [&head, body].concat()
    }

    /// The whole request in chunks. `trailers` are lines, each with its line break.
    pub fn chunked(self, chunks: &[&[u8]], trailers: &str) -> Vec<u8> {
        let mut bytes = self.header("transfer-encoding", "chunked").head();
        for part in chunks {
            bytes.extend(chunk(part));
        }
        bytes.extend(format!("0\r\n{trailers}\r\n").bytes());
        bytes
    }
}

/// One chunk of a chunked body. Not for an empty one, which would be the last.
pub fn chunk(data: &[u8]) -> Vec<u8> {
    let size = format!("{:x}\r\n", data.len());
    [size.as_bytes(), data, b"\r\n"].concat()
}

/// A connection of its own to the gateway.
pub struct Connection {
    stream: TcpStream,
    /// What came and was not asked for yet.
    read: Vec<u8>,
}

impl Connection {
    pub async fn open(addr: SocketAddr) -> Connection {
        let stream = TcpStream::connect(addr).await.expect("the gateway accepts");
        stream.set_nodelay(true).expect("a TCP option");
        Connection {
            stream,
            read: Vec::new(),
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = self.stream.write_all(bytes.as_ref());
        in_time(sent).await.expect("the gateway reads");
    }

    /// Sends what it can: the gateway may answer and close before it has read all.
    pub async fn send_some(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = in_time(self.stream.write_all(bytes.as_ref())).await;
    }

    /// Reads until this text has come, and drops everything up to its end.
    pub async fn read_past(&mut self, text: &str) {
        while find(&self.read, text.as_bytes()).is_none() {
            assert!(self.read_more().await, "closed before {text:?}: {self:?}");
        }
        let at = find(&self.read, text.as_bytes()).expect("waited for");
        self.read.drain(..at + text.len());
    }

    /// The next answer. Later ones stay where they are.
    pub async fn answer(&mut self) -> Answer {
        loop {
            if let Some((answer, len)) = Answer::parse(&self.read) {
                self.read.drain(..len);
                return answer;
            }
            assert!(self.read_more().await, "closed before an answer: {self:?}");
        }
    }

    /// False where the gateway has closed. A reset is an end too.
    async fn read_more(&mut self) -> bool {
        let count = in_time(self.stream.read_buf(&mut self.read)).await;
        count.is_ok_and(|count| count > 0)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read {:?}", String::from_utf8_lossy(&self.read))
    }
}

/// Sends these bytes, and returns the first answer.
pub async fn ask(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    let mut connection = Connection::open(addr).await;
    connection.send_some(bytes).await;
    connection.answer().await
}

/// An answer to the byte.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.headers.iter().find(|(own, _)| own == name)?;
        Some(value)
    }

    /// The first value of a header, as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.header(name)?).ok()
    }

    /// The service that answered, as the filter says.
    pub fn service(&self) -> Option<&str> {
        self.text("x-ai-fallback-service")
    }

    /// Service and outcome of each attempt, as the filter says, without the times: `primary;503, backup;200`.
    pub fn attempts(&self) -> String {
        without_times(self.text("x-ai-fallback-attempts").unwrap_or_default())
    }

    /// The body as JSON; `null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The `model` that the service received, as it says.
    pub fn model(&self) -> Option<String> {
        self.json()["model"].as_str().map(str::to_owned)
    }

    /// An answer and its length in bytes; `None` where the bytes do not begin with a whole one.
    fn parse(bytes: &[u8]) -> Option<(Answer, usize)> {
        let end = find(bytes, b"\r\n\r\n")?;
        let mut lines = bytes[..end].split(|&byte| byte == b'\n');
        let status_line = std::str::from_utf8(lines.next()?).ok()?;
        let status = status_line.split(' ').nth(1)?.trim().parse().ok()?;
        let mut answer = Answer {
            status,
            headers: lines.filter_map(header).collect(),
            body: Vec::new(),
        };
        let len = answer.read_body(&bytes[end + 4..])?;
        Some((answer, end + 4 + len))
    }

    /// Envoy says the length of every body, or sends it in chunks.
    fn read_body(&mut self, rest: &[u8]) -> Option<usize> {
        if self.text("transfer-encoding") == Some("chunked") {
            return self.read_chunks(rest);
        }
        let len = self
            .text("content-length")
            .map_or(0, |text| text.parse().expect("a length"));
        self.body = rest.get(..len)?.to_vec();
        Some(len)
    }

    fn read_chunks(&mut self, rest: &[u8]) -> Option<usize> {
        self.body.clear();
        let mut at = 0;
        loop {
            let line = find(&rest[at..], b"\r\n")?;
            let size = std::str::from_utf8(&rest[at..at + line]).expect("a size");
            let size = usize::from_str_radix(size, 16).expect("a size");
            at += line + 2;
            if size == 0 {
                // Trailers, where there are any, end with an empty line too.
                return Some(at - 2 + find(&rest[at - 2..], b"\r\n\r\n")? + 4);
            }
            self.body.extend(rest.get(at..at + size)?);
            at += size + 2;
            rest.get(..at)?;
        }
    }
}

/// An `x-ai-fallback-attempts` value without its times.
pub fn without_times(attempts: &str) -> String {
    let is_time = |part: &&str| {
        part.strip_suffix("ms")
            .is_some_and(|ms| ms.parse::<u32>().is_ok())
    };
    let attempts = attempts.split(", ").map(|attempt| {
        let parts: Vec<_> = attempt.split(';').filter(|part| !is_time(part)).collect();
        parts.join(";")
    });
    attempts.collect::<Vec<_>>().join(", ")
}

fn header(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = String::from_utf8_lossy(&line[..colon]).to_lowercase();
    Some((name, line[colon + 1..].trim_ascii().to_vec()))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(LIMIT, work)
        .await
        .unwrap_or_else(|_| panic!("nothing happened for {LIMIT:?}"))
}
