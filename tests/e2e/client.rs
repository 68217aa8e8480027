//! Clients: requests written shortly, and what came back.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{CASE, ROUTE};

/// How long a client waits for anything. Far more than any test takes.
const LIMIT: Duration = Duration::from_secs(30);

/// A request that is not sent yet. By default a chat request for `gpt-4o`, whole.
#[derive(Clone)]
pub struct Ask {
    /// Unique, and in the header `x-test-id`.
    pub id: String,
    gateway: SocketAddr,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Sent,
    http2: bool,
}

#[derive(Clone)]
enum Sent {
    Whole(Bytes),
    /// Without a `content-length`.
    Chunked(Vec<Bytes>),
}

impl Ask {
    pub fn new(gateway: SocketAddr, case: &str, route: &str) -> Ask {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let id = format!("{case}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let ask = Ask {
            id: id.clone(),
            gateway,
            method: Method::POST,
            path: "/v1/chat/completions".to_owned(),
            headers: HeaderMap::new(),
            body: Sent::Whole(Bytes::new()),
            http2: false,
        };
        ask.header(CASE, case)
            .header(ROUTE, route)
            .header("x-test-id", &id)
            .header("content-type", "application/json")
            .json(&json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}))
    }

    /// What a mock service does with this request: the grammar of `tests/mock/README.md`.
    pub fn fault(self, service: &str, spec: &str) -> Ask {
        self.header(&format!("x-mock-{service}"), spec)
    }

    /// Goes to this address in place of the gateway.
    pub fn at(mut self, addr: SocketAddr) -> Ask {
        self.gateway = addr;
        self
    }

    /// Asks for a stream.
    pub fn stream(self) -> Ask {
        self.json(&json!({"model": "gpt-4o", "stream": true, "max_tokens": 9, "messages": []}))
    }

    /// Anthropic's API.
    pub fn messages(self) -> Ask {
        self.path("/v1/messages")
    }

    pub fn path(mut self, path: &str) -> Ask {
        self.path = path.to_owned();
        self
    }

    /// A path of a Model API that no other request has: what is told of this one can be found by it.
    pub fn own_path(&self) -> String {
        format!("/{}/chat/completions", self.id)
    }

    pub fn method(mut self, method: Method) -> Ask {
        self.method = method;
        self
    }

    /// Sets a header in place of the one of that name.
    pub fn header(mut self, name: &str, value: &str) -> Ask {
        let name: HeaderName = name.parse().expect("a header name");
        let value = HeaderValue::from_str(value).expect("a header value");
        self.headers.insert(name, value);
        self
    }

    pub fn without(mut self, name: &str) -> Ask {
        self.headers.remove(name);
        self
    }

    pub fn json(self, body: &Value) -> Ask {
        self.body(body.to_string())
    }

    pub fn model(self, model: &str) -> Ask {
        self.json(&json!({"model": model, "messages": []}))
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Ask {
        self.body = Sent::Whole(body.into());
        self
    }

    pub fn chunks(mut self, body: &[&str]) -> Ask {
        let owned = |chunk: &&str| Bytes::copy_from_slice(chunk.as_bytes());
        self.body = Sent::Chunked(body.iter().map(owned).collect());
        self
    }

    /// Speaks HTTP/2.
    pub fn http2(mut self) -> Ask {
        self.http2 = true;
        self
    }

    /// The whole answer. Panics where there is none, or it breaks.
    pub async fn send(self) -> Answer {
        self.open().await.rest().await
    }

    /// The answer once its headers are there.
    pub async fn open(self) -> Live {
        let what = format!("{} {}", self.id, self.path);
        let opened = self.try_open().await;
        opened.unwrap_or_else(|why| panic!("{what}: {why:?}"))
    }

    /// As [`Ask::open`], where an error is what the test is about.
    pub async fn try_open(self) -> reqwest::Result<Live> {
        // One client each: its connections belong to the runtime of one test.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(LIMIT);
        let client = match self.http2 {
            true => client.http2_prior_knowledge(),
            false => client.http1_only(),
        };
        let url = format!("http://{}{}", self.gateway, self.path);
        let request = client.build()?.request(self.method, url);
        let body = match self.body {
            Sent::Whole(body) => body.into(),
            Sent::Chunked(chunks) => reqwest::Body::wrap_stream(futures_util::stream::iter(
                chunks.into_iter().map(Ok::<_, std::io::Error>),
            )),
        };
        let response = request.headers(self.headers).body(body).send().await?;
        Ok(Live {
            id: self.id,
            response,
            read: BytesMut::new(),
        })
    }
}

/// An answer that is still coming in.
pub struct Live {
    id: String,
    response: reqwest::Response,
    read: BytesMut,
}

impl Live {
    /// Waits until the body so far holds `text`.
    pub async fn read_until(&mut self, text: &str) {
        while !contains(&self.read, text) {
            let chunk = self.response.chunk().await.expect("no error so far");
            let chunk = chunk.unwrap_or_else(|| panic!("no {text:?} in {:?}", self.read));
            self.read.extend_from_slice(&chunk);
        }
    }

    /// The rest. Panics where the answer breaks.
    pub async fn rest(self) -> Answer {
        let (answer, broke) = self.rest_or_broken().await;
        assert!(broke.is_none(), "{broke:?} after {answer:?}");
        answer
    }

    /// The part that came before the answer broke. Panics where it does not break.
    pub async fn broken(self) -> Answer {
        let (answer, broke) = self.rest_or_broken().await;
        assert!(broke.is_some(), "a whole answer: {answer:?}");
        answer
    }

    async fn rest_or_broken(mut self) -> (Answer, Option<reqwest::Error>) {
        let broke = loop {
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.read.extend_from_slice(&chunk),
                Ok(None) => break None,
                Err(why) => break Some(why),
            }
        };
        let answer = Answer {
            id: self.id,
            status: self.response.status(),
            headers: self.response.headers().clone(),
            body: self.read.freeze(),
        };
        answer.assert_no_internal_headers();
        (answer, broke)
    }
}

/// A whole answer.
pub struct Answer {
    /// The `x-test-id` of its request.
    pub id: String,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = &self.body[..self.body.len().min(2000)];
        let text = String::from_utf8_lossy(start);
        let Answer {
            id,
            status,
            headers,
            ..
        } = self;
        write!(f, "{id}: {status} {headers:#?}\n{text}")
    }
}

impl Answer {
    fn assert_no_internal_headers(&self) {
        let mut own = self
            .headers
            .keys()
            .filter(|name| name.as_str().starts_with("x-ai-fallback-"));
        let public = |name: &HeaderName| {
            ["x-ai-fallback-service", "x-ai-fallback-attempts"].contains(&name.as_str())
        };
        assert!(own.all(public), "{self:?}");
    }

    /// The one value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        assert!(values.next().is_none(), "{name} twice in {self:?}");
        Some(value.to_str().expect("text"))
    }

    /// `x-ai-fallback-service`.
    pub fn service(&self) -> Option<&str> {
        self.header("x-ai-fallback-service")
    }

    /// `x-ai-fallback-attempts` without the times, whose form is checked: `alpha;503, beta;200`.
    /// Where the request was not read, the reason follows: `alpha;503;too_large`. A service that was skipped is `alpha;cooling`.
    pub fn attempts(&self) -> String {
        let Some(header) = self.header("x-ai-fallback-attempts") else {
            return String::new();
        };
        let shown: Vec<String> = header
            .split(", ")
            .map(|attempt| {
                let mut parts: Vec<&str> = attempt.split(';').collect();
                if let [_, "cooling"] = parts[..] {
                    return attempt.to_owned();
                }
                assert!((3..=4).contains(&parts.len()), "{header}");
                let millis = parts.remove(2).strip_suffix("ms").expect("ms");
                assert!(millis.parse::<u32>().is_ok(), "{header}");
                parts.join(";")
            })
            .collect();
        shown.join(", ")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    /// What the model said, put together from the events of a stream, or from a whole answer.
    pub fn said(&self) -> String {
        let stream = self.header("content-type").unwrap_or_default();
        if !stream.starts_with("text/event-stream") {
            return said(&self.json(), "message");
        }
        let events = self.text().lines();
        let data = events.filter_map(|line| line.strip_prefix("data: "));
        data.filter_map(|data| serde_json::from_str(data).ok())
            .map(|event| said(&event, "delta"))
            .collect()
    }

    /// Panics unless this is the good answer of `service`, after these attempts.
    #[track_caller]
    pub fn assert_from(&self, service: &str, attempts: &str) {
        assert_eq!(self.attempts(), attempts, "{self:?}");
        assert_eq!(self.service(), Some(service), "{self:?}");
        assert_eq!(self.status, 200, "{self:?}");
        let said = self.said();
        let mock = self.header("x-mock-service").expect("a mock service");
        assert!(said.starts_with(&format!("Hello from {mock}, ")), "{said}");
    }

    /// Panics unless the client got a failure as it came: with this status, after these attempts.
    #[track_caller]
    pub fn assert_failure_of(&self, mock: &str, status: u16, attempts: &str) {
        assert_eq!(self.attempts(), attempts, "{self:?}");
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("x-mock-service"), Some(mock), "{self:?}");
        let message = format!("{mock} failed on purpose");
        assert!(self.text().contains(&message), "{self:?}");
    }
}

fn said(value: &Value, part: &str) -> String {
    let texts = [
        &value["choices"][0][part]["content"],
        &value["content"][0]["text"],
        &value["delta"]["text"],
        &value["text"],
    ];
    texts.iter().filter_map(|text| text.as_str()).collect()
}

/// A connection on which every byte is the test's own.
pub struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    pub async fn connect(addr: SocketAddr) -> Raw {
        let stream = TcpStream::connect(addr).await.expect("a connection");
        Raw {
            stream,
            read: Vec::new(),
        }
    }

    pub async fn write(&mut self, text: &str) {
        let written = self.stream.write_all(text.as_bytes()).await;
        written.expect("an open connection");
    }

    /// All that came so far, once it holds `text`.
    pub async fn read_until(&mut self, text: &str) -> String {
        let found = async {
            while !contains(&self.read, text) {
                let mut some = [0; 4096];
                let size = self.stream.read(&mut some).await.expect("no reset");
                assert!(size > 0, "closed before {text:?}: {}", self.so_far());
                self.read.extend_from_slice(&some[..size]);
            }
        };
        if tokio::time::timeout(LIMIT, found).await.is_err() {
            panic!("no {text:?} in {}", self.so_far());
        }
        self.so_far()
    }

    /// All that came, once it ends in `text`.
    pub async fn read_until_end(&mut self, text: &str) -> String {
        while !self.read.ends_with(text.as_bytes()) {
            let mut some = [0; 4096];
            let read = tokio::time::timeout(LIMIT, self.stream.read(&mut some)).await;
            let size = read.expect("in time").expect("no reset");
            assert!(size > 0, "closed before {text:?}: {}", self.so_far());
            self.read.extend_from_slice(&some[..size]);
        }
        self.so_far()
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}
