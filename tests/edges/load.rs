//! 200 requests at once with mixed faults: each answer belongs to its own request, and nothing is left behind.

use crate::client::without_times;
use crate::stack::{Mode, Stack, new_id};
use futures_util::future::join_all;
use reqwest::{Client, Response};
use serde_json::{Value, json};

in_each_mode!(each_answer_belongs_to_its_own_request);

const AT_ONCE: usize = 200;
const ROUNDS: usize = 6;
/// Of each request body: so large that a body left behind by each request would be seen.
const PADDING: usize = 16_384;

/// What the two services do, and what comes of it.
struct Case {
    stream: bool,
    primary: &'static str,
    backup: &'static str,
    attempts: &'static str,
}

const fn whole(primary: &'static str, backup: &'static str, attempts: &'static str) -> Case {
    Case {
        stream: false,
        primary,
        backup,
        attempts,
    }
}

const fn stream(primary: &'static str, backup: &'static str, attempts: &'static str) -> Case {
    Case {
        stream: true,
        primary,
        backup,
        attempts,
    }
}

const CASES: [Case; 22] = [
    whole("", "", "primary;200"),
    whole("", "", "primary;200"),
    whole("503", "", "primary;503, backup;200"),
    whole("429,retry-after=MARK", "", "primary;429, backup;200"),
    whole("503", "529,retry-after=MARK", "primary;503, backup;529"),
    whole("404", "reset", "primary;404, backup;reset"),
    whole("reset", "", "primary;reset, backup;200"),
    whole("empty", "", "primary;empty, backup;200"),
    whole("delay=30,chunks=5", "", "primary;200"),
    whole("503", "delay=60", "primary;503, backup;200"),
    whole("size=50000", "", "primary;200"),
    whole("503", "size=100000", "primary;503, backup;200"),
    whole("hang", "", "primary;request_timeout, backup;200"),
    whole("503,size=60000", "trailers", "primary;503, backup;200"),
    stream("chunks=6,gap=5", "", "primary;200"),
    stream("first=50,comments=3,gap=5", "", "primary;200"),
    stream("503", "", "primary;503, backup;200"),
    stream(
        "error-event",
        "chunks=9",
        "primary;stream_error, backup;200",
    ),
    stream("silence", "", "primary;first_packet_timeout, backup;200"),
    stream("comments", "", "primary;first_packet_timeout, backup;200"),
    stream(
        "hang",
        "503,retry-after=MARK",
        "primary;first_packet_timeout, backup;503",
    ),
    stream("503", "reset", "primary;503, backup;reset"),
];

async fn each_answer_belongs_to_its_own_request(mode: Mode) {
    let stack = Stack::start(mode, |plugin| {
        let fallback = &mut plugin["model_apis"][0]["fallback"];
        fallback["first_packet_timeout_ms"] = 2_000.into();
        fallback["request_timeout_ms"] = 3_000.into();
    });
    let client = Client::builder().no_proxy().build().unwrap();
    let mut memory = Vec::new();
    for _ in 0..ROUNDS {
        // Relatively prime to the number of cases, so that neighbours differ from round to round.
        let cases = CASES.iter().cycle().step_by(7).take(AT_ONCE);
        join_all(cases.map(|case| check(&client, &stack, case))).await;
        stack.settled().await;
        stack.assert_no_failure();
        memory.push(stack.count("memory_bytes"));
    }
    stack.assert_unharmed().await;
    assert_eq!(stack.count("unknown_answers"), 0);
    // The first rounds find out how much the worst moment takes. A body left behind by each request would add 3 MB per
    // round to that.
    let growth = memory[ROUNDS - 1] - memory[1];
    assert!(growth < 3_000_000, "memory grows: {memory:?}");
}

async fn check(client: &Client, stack: &Stack, case: &Case) {
    let id = new_id("load");
    let body = json!({"stream": case.stream, "messages": "x".repeat(PADDING), "model": &id});
    let spec = |spec: &str| spec.replace("MARK", &id);
    let answer = client
        .post(format!("http://{}/v1/chat/completions", stack.addr()))
        .header("content-type", "application/json")
        .header("x-test-id", &id)
        .header("x-mock-primary", spec(case.primary))
        .header("x-mock-backup", spec(case.backup))
        .body(body.to_string())
        .send()
        .await
        .expect("an answer");
    let attempts = without_times(&text(&answer, "x-ai-fallback-attempts"));
    // On a machine that is busy with something else, a good service may be too slow.
    let expected = if attempts.contains("timeout") {
        attempts.as_str()
    } else {
        case.attempts
    };
    assert_eq!(attempts, expected, "{} {}", case.primary, case.backup);
    let (service, outcome) = attempts
        .rsplit(", ")
        .next()
        .unwrap()
        .split_once(';')
        .unwrap();
    let Ok(status) = outcome.parse::<u16>() else {
        assert!([502, 504].contains(&answer.status().as_u16()), "{attempts}");
        return;
    };
    assert_eq!(answer.status(), status);
    assert_eq!(text(&answer, "x-ai-fallback-service"), service);
    if status != 200 {
        assert_eq!(text(&answer, "retry-after"), id, "{attempts}");
        return;
    }
    let body = answer.text().await.expect("a whole body");
    for model in models(&body, case.stream) {
        assert_eq!(model, id.as_str(), "{attempts}");
    }
}

/// The model name of an answer, or of each event of a stream.
fn models(body: &str, stream: bool) -> Vec<Value> {
    let model = |json: &str| {
        let mut json: Value = serde_json::from_str(json).expect("JSON");
        json["model"].take()
    };
    if !stream {
        return vec![model(body)];
    }
    let events = body.lines().filter_map(|line| line.strip_prefix("data: "));
    let models: Vec<_> = events
        .take_while(|data| *data != "[DONE]")
        .map(model)
        .collect();
    assert!(
        body.ends_with("data: [DONE]\n\n") && models.len() > 2,
        "{body}"
    );
    models
}

fn text(answer: &Response, name: &str) -> String {
    let value = answer.headers().get(name);
    value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}
