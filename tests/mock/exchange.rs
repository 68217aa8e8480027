//! One exchange: read the request, choose the fault, answer.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::answers::{self, Api, Said, Told};
use super::asked::Asked;
use super::body::{self, Body, Broken, Parts};
use super::date;
use super::record::{Ended, Exchange, Log, TEST_ID};
use super::server::Fuse;
use super::spec::{Instead, Spec, Then};
use super::sse;

/// What all connections of one service share.
pub struct Service {
    pub name: String,
    pub log: Arc<Log>,
    pub gates: Gates,
    default_spec: Spec,
}

impl Service {
    pub fn new(name: &str, default_spec: Spec) -> Service {
        Service {
            name: name.to_owned(),
            log: Arc::new(Log::new()),
            gates: Gates::default(),
            default_spec,
        }
    }

    /// Header for this service, header for all, model name, default: the first that is there, and is for the request of
    /// this number among those of its test.
    fn spec(&self, headers: &HeaderMap, model: &str, number: usize) -> Result<Spec, String> {
        let own = format!("x-mock-{}", self.name);
        let headers = [&own, "x-mock"]
            .into_iter()
            .filter_map(|name| headers.get(name));
        let headers = headers.map(|value| value.to_str().map_err(|why| why.to_string()));
        let of_model = model.split_once('!').map(|(_, spec)| Ok(spec));
        for text in headers.chain(of_model) {
            let spec: Spec = text?.parse()?;
            if spec.is_for(number) {
                return Ok(spec);
            }
        }
        let default = Some(&self.default_spec).filter(|spec| spec.is_for(number));
        Ok(default.cloned().unwrap_or_default())
    }
}

/// Where exchanges wait for their test.
#[derive(Default)]
pub struct Gates(Mutex<HashMap<String, Arc<Semaphore>>>);

impl Gates {
    pub fn open(&self, id: &str) {
        self.of(id).add_permits(1);
    }

    fn of(&self, id: &str) -> Arc<Semaphore> {
        let mut gates = self.0.lock().unwrap_or_else(|held| held.into_inner());
        let new = || Arc::new(Semaphore::new(0));
        gates.entry(id.to_owned()).or_insert_with(new).clone()
    }
}

/// Answers one request, or breaks its connection.
pub async fn answer(
    service: Arc<Service>,
    fuse: Fuse,
    request: Request<Incoming>,
) -> Result<Response<Body>, Broken> {
    if let Some(answer) = control(&service, &request) {
        return Ok(answer);
    }
    let (head, incoming) = request.into_parts();
    let exchange = service.log.begin(&head);
    receive(incoming, &exchange).await?;

    let asked = Asked::parse(&exchange.body());
    let api = Api::of(head.uri.path());
    let id = head.headers.get(TEST_ID).and_then(|id| id.to_str().ok());
    let number = service.log.count_of(id.unwrap_or_default());
    let spec = match service.spec(&head.headers, asked.model(), number) {
        Ok(spec) => spec,
        Err(why) => return Ok(bad_spec(&service, api, &why, exchange)),
    };
    let gate = service.gates.of(id.unwrap_or_default());
    // On HTTP/2 the stream alone is reset, not the connection that others share.
    let fuse = if head.version == Version::HTTP_2 {
        Fuse::default()
    } else {
        fuse
    };

    if spec.hold {
        body::pass(&gate).await;
    }
    sleep(spec.delay).await;
    match spec.instead {
        Some(Instead::Hang) => pending().await,
        Some(Instead::Reset) => {
            exchange.end(Ended::Reset);
            fuse.blow();
            return Err(Broken);
        }
        None => {}
    }
    let (response, parts) = compose(&service, api, &asked, &spec);
    let steps = body::steps(&spec, parts);
    Ok(response.map(|()| body::play(spec.gzip, steps, exchange, gate, fuse)))
}

async fn receive(mut incoming: Incoming, exchange: &Exchange) -> Result<(), Broken> {
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|_| Broken)?;
        if let Some(data) = frame.data_ref() {
            exchange.data(data);
        }
        if let Some(trailers) = frame.trailers_ref() {
            exchange.trailers(trailers);
        }
    }
    exchange.complete();
    Ok(())
}

/// The head of the answer, and what its body is made of.
fn compose(service: &Service, api: Api, asked: &Asked, spec: &Spec) -> (Response<()>, Parts) {
    let status = spec.status.unwrap_or(200);
    let message = format!("{} failed on purpose", service.name);
    let message = spec.message.as_deref().unwrap_or(&message);
    let told = Told {
        message,
        code: spec.code.as_deref(),
        kind: spec.kind.as_deref(),
    };
    let streams = status < 400 && asked.stream() && api.streams();
    let error = match streams {
        true => answers::error_event(api, &told),
        false => answers::error(api, status, &told).to_string(),
    };
    let error = spec.body.clone().unwrap_or(error);
    let chunks = if spec.empty {
        Vec::new()
    } else if streams {
        sse::events(api, &Said::new(&service.name, asked, spec))
    } else if status >= 400 {
        pieces(error.as_bytes(), spec)
    } else {
        let said = Said::new(&service.name, asked, spec);
        pieces(answers::whole(api, &said).to_string().as_bytes(), spec)
    };

    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).expect("checked by the grammar");
    let trailers = spec.trailers.then(|| trailers(service));
    set_headers(response.headers_mut(), service, spec, streams);
    if let Some(length) = length(spec, streams, &chunks) {
        response
            .headers_mut()
            .insert("content-length", length.into());
    }
    let filler = if streams { ": keep-alive\n\n" } else { " " };
    let parts = Parts {
        chunks,
        error: error.into(),
        filler: Bytes::from_static(filler.as_bytes()),
        trailers,
    };
    (response, parts)
}

fn set_headers(headers: &mut HeaderMap, service: &Service, spec: &Spec, streams: bool) {
    let content_type = match streams {
        true => "text/event-stream; charset=utf-8",
        false => "application/json",
    };
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set("content-type", content_type);
    set("x-mock-service", &service.name);
    if let Some(value) = &spec.retry_after {
        set("retry-after", value);
    }
    if let Some(value) = &spec.retry_after_ms {
        set("retry-after-ms", value);
    }
    if let Some(seconds) = spec.retry_after_date {
        set("retry-after", &date::http(SystemTime::now() + seconds));
    }
    if spec.gzip {
        set("content-encoding", "gzip");
    }
    if spec.trailers {
        set("trailer", "x-mock-trailer");
    }
}

fn trailers(service: &Service) -> HeaderMap {
    let name = HeaderValue::from_str(&service.name);
    let name = name.unwrap_or(HeaderValue::from_static("mock"));
    HeaderMap::from_iter([("x-mock-trailer".parse().expect("a header name"), name)])
}

/// A whole body in the pieces that the spec asks for, or needs to break it in the middle.
fn pieces(whole: &[u8], spec: &Spec) -> Vec<Bytes> {
    let after = spec.then.map(|(after, _)| after).into_iter();
    let breaks = after.chain(spec.gate).filter(|after| *after < whole.len());
    let least = breaks.map(|after| after + 1).max().unwrap_or(1);
    answers::split(whole, spec.chunks.unwrap_or(1).max(least), |_| true)
}

/// `content-length`, where the body has a known end or should have had one.
fn length(spec: &Spec, streams: bool, chunks: &[Bytes]) -> Option<usize> {
    if spec.empty {
        return Some(0);
    }
    let open = match spec.then {
        None => spec.comments.is_some(),
        Some((after, Then::Cut | Then::Reset | Then::Stall)) => after >= chunks.len(),
        Some((_, Then::Endless | Then::Error | Then::End)) => true,
    };
    let known = !open && !streams && !spec.trailers && !spec.gzip;
    known.then(|| chunks.iter().map(Bytes::len).sum())
}

/// `GET /__requests`, `DELETE /__requests` and `POST /__gate/ID`; not recorded.
fn control(service: &Service, request: &Request<Incoming>) -> Option<Response<Body>> {
    let path = request.uri().path();
    let text = match (request.method(), path) {
        (&Method::GET, "/__requests") => service.log.to_json().to_string(),
        (&Method::DELETE, "/__requests") => {
            service.log.clear();
            "{}".to_owned()
        }
        (&Method::POST, path) => {
            service.gates.open(path.strip_prefix("/__gate/")?);
            "{}".to_owned()
        }
        _ => return None,
    };
    Some(json_answer(200, text))
}

fn bad_spec(service: &Service, api: Api, why: &str, exchange: Exchange) -> Response<Body> {
    let message = format!("{}: wrong fault spec: {why}", service.name);
    eprintln!("{message}");
    exchange.end(Ended::Completed);
    let told = Told {
        message: &message,
        code: None,
        kind: None,
    };
    json_answer(400, answers::error(api, 400, &told).to_string())
}

fn json_answer(status: u16, text: String) -> Response<Body> {
    let mut response = Response::new(body::plain(text));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", json);
    response
}
