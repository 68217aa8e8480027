//! Requests written shortly, and what came back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::world::CASE;

/// How long a client waits for anything. Far more than any test takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A request that is not sent yet: by default a chat request for a stream of `gpt-4o`.
#[derive(Clone)]
pub struct Ask {
    /// Unique, and in the header `x-test-id`.
    pub id: String,
    gateway: SocketAddr,
    headers: HeaderMap,
    body: Bytes,
    http2: bool,
}

impl Ask {
    pub fn new(gateway: SocketAddr, case: &str) -> Ask {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let id = format!("{case}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let ask = Ask {
            id: id.clone(),
            gateway,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            http2: false,
        };
        ask.header(CASE, case)
            .header("x-test-id", &id)
            .header("content-type", "application/json")
            .json(&json!({"model": "gpt-4o", "stream": true, "messages": []}))
    }

    /// What a mock service does with this request: the grammar of `tests/mock/README.md`.
    pub fn fault(self, service: &str, spec: &str) -> Ask {
        self.header(&format!("x-mock-{service}"), spec)
    }

    /// Asks for a whole answer, not a stream.
    pub fn whole(self) -> Ask {
        self.json(&json!({"model": "gpt-4o", "messages": []}))
    }

    pub fn header(mut self, name: &str, value: &str) -> Ask {
        let name: HeaderName = name.parse().expect("a header name");
        let value = HeaderValue::from_str(value).expect("a header value");
        self.headers.insert(name, value);
        self
    }

    pub fn json(self, body: &Value) -> Ask {
        self.body(body.to_string())
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Ask {
        self.body = body.into();
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
        let client = reqwest::Client::builder().no_proxy().timeout(LIMIT);
        let client = match self.http2 {
            true => client.http2_prior_knowledge(),
            false => client.http1_only(),
        };
        let url = format!("http://{}/v1/chat/completions", self.gateway);
        let request = client.build().expect("a client").post(url);
        let sent = request.headers(self.headers).body(self.body).send().await;
        Live {
            response: sent.unwrap_or_else(|why| panic!("{}: {why:?}", self.id)),
            id: self.id,
            read: BytesMut::new(),
        }
    }
}

/// An answer that is still coming in.
pub struct Live {
    id: String,
    response: reqwest::Response,
    read: BytesMut,
}

impl Live {
    /// Waits for the next piece of the body.
    pub async fn next(&mut self) {
        let chunk = self.response.chunk().await.expect("no error so far");
        self.read.extend_from_slice(&chunk.expect("more to come"));
    }

    /// The rest. Panics where the answer breaks.
    pub async fn rest(self) -> Answer {
        let (answer, broke) = self.rest_or_broken().await;
        assert!(broke.is_none(), "{broke:?} after {answer:?}");
        answer
    }

    /// The part that came before the answer broke. Panics where it ends cleanly.
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
            status: self.response.status().as_u16(),
            headers: self.response.headers().clone(),
            text: String::from_utf8_lossy(&self.read).into_owned(),
        };
        (answer, broke)
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub id: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        assert!(values.next().is_none(), "{name} twice in {self:?}");
        value.to_str().ok()
    }

    /// `x-ai-fallback-attempts` without the times: `one;503, two;200`.
    pub fn attempts(&self) -> String {
        let header = self.header("x-ai-fallback-attempts").unwrap_or_default();
        let shown = header.split(", ").map(|attempt| {
            let mut parts: Vec<&str> = attempt.split(';').collect();
            if parts.len() > 2 {
                let took = parts.remove(2).strip_suffix("ms").map(str::parse::<u32>);
                assert!(matches!(took, Some(Ok(_))), "{header}");
            }
            parts.join(";")
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    /// Panics unless this is a whole good answer of `service`, after these attempts.
    #[track_caller]
    pub fn assert_from(&self, service: &str, attempts: &str) {
        assert_eq!(self.attempts(), attempts, "{self:?}");
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(
            self.header("x-ai-fallback-service"),
            Some(service),
            "{self:?}"
        );
        assert_eq!(self.header("x-mock-service"), Some(service), "{self:?}");
        assert_eq!(self.header("x-ai-fallback-retry"), None, "{self:?}");
        assert!(
            self.said().starts_with(&format!("Hello from {service}, ")),
            "{self:?}"
        );
    }

    /// What the model said, put together from the events of a stream, or from a whole answer.
    pub fn said(&self) -> String {
        let events = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        let values = events
            .chain([self.text.as_str()])
            .filter_map(|data| serde_json::from_str(data).ok());
        values
            .map(|value: Value| {
                let choice = &value["choices"][0];
                let text = [&choice["delta"]["content"], &choice["message"]["content"]];
                text.iter()
                    .filter_map(|text| text.as_str())
                    .collect::<String>()
            })
            .collect()
    }
}
