//! Whether a row went as expected.

use crate::ask::Answer;
use crate::mock::Mock;
use crate::rows::Row;
use crate::stack::{Stack, UNPLUG};

/// How the rows went so far.
#[derive(Default)]
pub struct Tally {
    pub rows: usize,
    pub wrong: usize,
    /// Requests whose first service failed.
    pub failed: usize,
    /// Those that got a good answer all the same.
    pub saved: usize,
}

impl Tally {
    pub fn add(&mut self, answer: &Answer, problems: &[String]) {
        let first = answer.attempts.first();
        let failed = first.is_some_and(|first| first.outcome != "200");
        self.rows += 1;
        self.wrong += usize::from(!problems.is_empty());
        self.failed += usize::from(failed);
        self.saved += usize::from(failed && answer.status == Some(200));
    }

    pub fn is_good(&self) -> bool {
        self.rows > 0 && self.wrong == 0
    }
}

/// One sentence for each thing that is not as expected. `id` is the request's `x-test-id`, by which
/// the services know what they were sent.
pub fn problems(row: &Row, answer: &Answer, stack: &Stack, id: &str) -> Vec<String> {
    let (status, from) = row.answer;
    let service = (from != "gateway").then_some(from);
    let sent = sent(stack, id);
    let names = sent.iter().map(|(name, _)| name.clone());

    // What is checked, what it must be, what it was.
    let mut checks = vec![
        ("status", status.to_string(), shown(answer.status)),
        ("answer from", from.to_owned(), answer.from.clone()),
        (
            "x-ai-fallback-service",
            shown(service),
            shown(answer.service.as_deref()),
        ),
        (
            "x-ai-fallback-attempts",
            row.tried.to_owned(),
            tried(answer),
        ),
        ("services that were asked", reached(row), join(names)),
        (
            "broken off",
            row.breaks.to_string(),
            (!answer.whole).to_string(),
        ),
    ];
    if let Some(models) = row.models {
        let sent = sent.iter().map(|(name, model)| format!("{name} {model}"));
        checks.push(("models sent", models.to_owned(), join(sent)));
    }
    if let Some(says) = row.says.filter(|says| !answer.body.contains(says)) {
        checks.push(("body", format!("with {says}"), "without".to_owned()));
    }
    if let Some(expected) = row.live {
        let live = is_live(answer, stack, id);
        checks.push(("passed on live", expected.to_string(), live.to_string()));
    }
    let wrong = checks
        .into_iter()
        .filter(|(_, expected, got)| expected != got);
    wrong
        .map(|(what, expected, got)| format!("{what}: expected {expected}, got {got}"))
        .collect()
}

fn tried(answer: &Answer) -> String {
    let attempts = answer.attempts.iter();
    join(attempts.map(|attempt| format!("{};{}", attempt.service, attempt.outcome)))
}

/// The services that must have received a request.
fn reached(row: &Row) -> String {
    let unplugged = row.headers.iter().any(|(name, _)| *name == UNPLUG);
    let attempts = row
        .tried
        .split(", ")
        .filter_map(|attempt| attempt.split_once(';'));
    let reached = attempts.filter(|&(service, outcome)| match outcome {
        "intercepted" | "cooling" => false,
        _ => !unplugged || service != "openai",
    });
    join(reached.map(|(service, _)| service.to_owned()))
}

/// The services that received a request, in order of arrival, and the model name that each was sent.
fn sent(stack: &Stack, id: &str) -> Vec<(String, String)> {
    let received = |mock: &Mock| {
        let name = mock.name().to_owned();
        let all = mock.requests_with(id).into_iter();
        all.map(move |one| (one.at, name.clone(), one.model().unwrap_or_default()))
    };
    let mut all: Vec<_> = stack.services.iter().flat_map(received).collect();
    all.sort();
    all.into_iter()
        .map(|(_, name, model)| (name, model))
        .collect()
}

/// The client had the first chunk before the service had sent the last.
fn is_live(answer: &Answer, stack: &Stack, id: &str) -> bool {
    let services = stack.services.iter();
    let received = services.flat_map(|mock| mock.requests_with(id));
    let last = received.filter_map(|one| one.last_chunk_at).max();
    last.zip(answer.first_at)
        .is_some_and(|(last, first)| first < last)
}

fn join(all: impl Iterator<Item = String>) -> String {
    all.collect::<Vec<_>>().join(", ")
}

fn shown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}
