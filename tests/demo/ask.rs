//! The client: sends one request and notes what comes back, and when.

use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, Response};

use crate::rows::{Api, Row};
use crate::stack::Stack;

/// Far more than the longest row takes.
const LIMIT: Duration = Duration::from_secs(20);

pub struct Client {
    http: reqwest::Client,
    /// `http://ADDR`
    server: String,
}

/// What the client got.
pub struct Answer {
    /// `None`: no answer at all.
    pub status: Option<u16>,
    /// Who made it: the service, by its own word, or the gateway.
    pub from: String,
    /// `x-ai-fallback-service`.
    pub service: Option<String>,
    /// `x-ai-fallback-attempts`.
    pub attempts: Vec<Attempt>,
    /// When the first byte of the body came.
    pub first_at: Option<Instant>,
    /// When each event of a stream was complete.
    pub events_at: Vec<Instant>,
    /// Time to that byte.
    pub first: Option<Duration>,
    /// Time to the end.
    pub total: Duration,
    /// The body did not break off.
    pub whole: bool,
    pub body: String,
}

/// One of `x-ai-fallback-attempts`.
pub struct Attempt {
    pub service: String,
    pub outcome: String,
    pub took: String,
}

impl Client {
    pub fn new(stack: &Stack) -> reqwest::Result<Client> {
        Client::of(stack.envoy.url(""))
    }

    /// A client of `server`: `http://ADDR`.
    pub fn of(server: String) -> reqwest::Result<Client> {
        let http = reqwest::Client::builder().no_proxy().timeout(LIMIT);
        Ok(Client {
            http: http.build()?,
            server,
        })
    }

    /// Sends the row's request, with this `x-test-id`.
    pub async fn ask(&self, row: &Row, id: &str) -> Answer {
        let mut request = self.post(row.api, row.request_body());
        for (name, value) in row.headers {
            request = request.header(*name, *value);
        }
        let sent = Instant::now();
        match request.header("x-test-id", id).send().await {
            Ok(response) => read(response, sent).await,
            Err(error) => Answer::none(&error, sent),
        }
    }

    /// The tenant `noisy` has one request a day, and this is it.
    pub async fn use_up_rate_limit(&self) -> reqwest::Result<()> {
        let request = self.post(Api::Chat, r#"{"model": "gpt-4o"}"#.to_owned());
        request.header("x-tenant", "noisy").send().await?;
        Ok(())
    }

    fn post(&self, api: Api, body: String) -> RequestBuilder {
        let request = self.http.post(format!("{}{}", self.server, api.path()));
        request
            .header("content-type", "application/json")
            .body(body)
    }
}

async fn read(mut response: Response, sent: Instant) -> Answer {
    let header = |name| text(response.headers(), name);
    let mut answer = Answer {
        status: Some(response.status().as_u16()),
        from: header("x-mock-service").unwrap_or_else(|| "gateway".to_owned()),
        service: header("x-ai-fallback-service"),
        attempts: attempts(&header("x-ai-fallback-attempts").unwrap_or_default()),
        first_at: None,
        events_at: Vec::new(),
        first: None,
        total: Duration::ZERO,
        whole: false,
        body: String::new(),
    };
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let now = Instant::now();
                answer.first_at.get_or_insert(now);
                answer.body += &String::from_utf8_lossy(&chunk);
                let events = answer.body.matches("\n\n").count();
                answer.events_at.resize(events, now);
            }
            Ok(None) => break answer.whole = true,
            Err(_) => break,
        }
    }
    answer.first = answer.first_at.map(|at| at - sent);
    answer.total = sent.elapsed();
    answer
}

impl Answer {
    fn none(error: &reqwest::Error, sent: Instant) -> Answer {
        Answer {
            status: None,
            from: "nobody".to_owned(),
            service: None,
            attempts: Vec::new(),
            first_at: None,
            events_at: Vec::new(),
            first: None,
            total: sent.elapsed(),
            whole: false,
            body: error.to_string(),
        }
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// `openai;503;12ms, qwen;200;840ms`
fn attempts(header: &str) -> Vec<Attempt> {
    let attempt = |text: &str| {
        let mut fields = text.split(';').map(str::to_owned);
        let mut field = || fields.next().unwrap_or_default();
        let (service, mut outcome, took) = (field(), field(), field());
        // The kind of error.
        if let Some(kind) = fields.next() {
            outcome = format!("{outcome} {kind}");
        }
        Attempt {
            service,
            outcome,
            took,
        }
    };
    let all = header.split(", ").filter(|text| !text.is_empty());
    all.map(attempt).collect()
}
