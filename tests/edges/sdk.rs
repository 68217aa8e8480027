//! The real OpenAI and Anthropic SDKs for Python as clients: a fallback shows in the headers alone, and an error is the
//! exception that a program expects.

use crate::client::without_times;
use crate::stack::{Mode, Stack, new_id};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

in_each_mode!(
    openai_programs_see_a_fallback_in_the_headers_alone,
    anthropic_programs_see_a_fallback_in_the_headers_alone,
    openai_programs_name_the_models_to_fall_back_to,
    anthropic_programs_name_the_models_to_fall_back_to,
    openai_programs_see_errors_as_they_expect_them,
    anthropic_programs_see_errors_as_they_expect_them,
);

const EMBEDDINGS: &str = "[0.25, 0.5, 0.75][0.25, 0.5, 0.75]";

async fn openai_programs_see_a_fallback_in_the_headers_alone(mode: Mode) {
    let calls = [
        "chat",
        "chat_stream",
        "embeddings",
        "responses",
        "responses_stream",
    ];
    only_headers_differ(&Stack::shared(mode), "openai", &calls);
}

async fn anthropic_programs_see_a_fallback_in_the_headers_alone(mode: Mode) {
    only_headers_differ(
        &Stack::shared(mode),
        "anthropic",
        &["messages", "messages_stream"],
    );
}

fn only_headers_differ(stack: &Stack, sdk: &str, calls: &[&str]) {
    let faults = [
        ("", "primary", "primary;200"),
        ("503", "backup", "primary;503, backup;200"),
        ("429", "backup", "primary;429, backup;200"),
        ("reset", "backup", "primary;reset, backup;200"),
    ];
    let cases: Vec<_> = calls
        .iter()
        .flat_map(|call| faults.map(|fault| (*call, fault)))
        .collect();
    let asked: Vec<_> = cases
        .iter()
        .map(|(call, (fault, ..))| json!({"call": call, "model": new_id("sdk"), "headers": {"x-mock-primary": fault}}))
        .collect();
    let seen = run(stack, sdk, &asked);
    for ((call, (_, service, attempts)), (asked, seen)) in cases.iter().zip(asked.iter().zip(&seen))
    {
        let model = asked["model"].as_str().unwrap();
        assert_eq!(seen["model"], model, "{call}: {seen}");
        let text = match *call {
            "embeddings" => EMBEDDINGS.to_owned(),
            _ => format!("Hello from {service}, {model}"),
        };
        assert_eq!(seen["text"], text, "{call}");
        assert_eq!(
            seen["chunks"].as_u64() > Some(3),
            call.ends_with("stream"),
            "{seen}"
        );
        assert_eq!(seen["headers"]["x-ai-fallback-service"], *service, "{call}");
        assert_eq!(attempts_of(seen), *attempts, "{call}");
    }
}

async fn openai_programs_name_the_models_to_fall_back_to(mode: Mode) {
    models_fall_back(mode, "openai", &["chat", "chat_stream"]);
}

async fn anthropic_programs_name_the_models_to_fall_back_to(mode: Mode) {
    models_fall_back(mode, "anthropic", &["messages", "messages_stream"]);
}

/// `extra_body={"models": [...]}`.
fn models_fall_back(mode: Mode, sdk: &str, calls: &[&str]) {
    let stack = Stack::start(mode, |plugin| {
        plugin["model_apis"][0]["fallback"]["client_models"] = json!({});
    });
    // The models of the request, which services fail, who answers, and for which model.
    let cases = [
        (
            json!(["backup:second"]),
            "",
            "primary",
            "MODEL",
            "primary;200",
        ),
        (
            json!(["backup:second"]),
            "503",
            "backup",
            "second",
            "primary;503, backup;200",
        ),
        (
            json!(["backup/org/second"]),
            "reset",
            "backup",
            "org/second",
            "primary;reset, backup;200",
        ),
        (
            json!(["second", "backup:third"]),
            "503",
            "backup",
            "third",
            "primary;503, primary;503, backup;200",
        ),
        (
            json!(["second", "third"]),
            "503,times=2",
            "primary",
            "third",
            "primary;503, primary;503, primary;200",
        ),
        // The configured service is the last.
        (
            json!(["second"]),
            "503",
            "backup",
            "MODEL",
            "primary;503, primary;503, backup;200",
        ),
    ];
    for call in calls {
        let ids: Vec<_> = cases.iter().map(|_| new_id("sdk")).collect();
        let asked = cases.iter().zip(&ids).map(|((models, fault, ..), id)| {
            let headers = json!({"x-mock-primary": fault, "x-test-id": id});
            json!({"call": call, "model": id, "headers": headers, "body": {"models": models}})
        });
        let seen = run(&stack, sdk, &asked.collect::<Vec<_>>());
        for ((case, id), seen) in cases.iter().zip(&ids).zip(&seen) {
            let (models, _, service, model, attempts) = case;
            let model = model.replace("MODEL", id);
            assert_eq!(attempts_of(seen), *attempts, "{call} {models}: {seen}");
            assert_eq!(
                seen["text"],
                format!("Hello from {service}, {model}"),
                "{call}"
            );
            assert_eq!(seen["model"], model, "{call}");
            assert_eq!(
                seen["chunks"].as_u64() > Some(3),
                call.ends_with("stream"),
                "{seen}"
            );
            for received in [&stack.primary, &stack.backup].map(|mock| mock.requests_with(id)) {
                assert!(
                    received
                        .iter()
                        .all(|one| one.json().get("models").is_none())
                );
            }
        }
    }
}

/// What a program sees of an error: the class of the exception, its status, and a part of its text.
struct Seen {
    call: &'static str,
    headers: Value,
    body: Value,
    class: &'static str,
    status: u16,
    text: &'static str,
}

fn openai_errors() -> Vec<Seen> {
    let last = |backup: &str| json!({"x-mock-primary": "503", "x-mock-backup": backup});
    let seen = |call, headers, body, class, status, text| Seen {
        call,
        headers,
        body,
        class,
        status,
        text,
    };
    vec![
        seen(
            "chat",
            json!({}),
            json!({"model": 7}),
            "BadRequestError",
            400,
            "`model` in the request body is not a string",
        ),
        seen(
            "chat",
            json!({}),
            json!({"models": ["a", "b", "c", "d"]}),
            "BadRequestError",
            400,
            "`models` in the request body names more than 3 models",
        ),
        seen(
            "chat",
            json!({}),
            json!({"models": ["a", "backup:secret"]}),
            "PermissionDeniedError",
            403,
            "this caller may not use the entry of `models` `backup:secret`",
        ),
        seen(
            "chat_stream",
            json!({}),
            json!({"model": "secret"}),
            "PermissionDeniedError",
            403,
            "this caller may not use the model `secret`",
        ),
        seen(
            "chat",
            json!({"x-ai-hops": "1"}),
            json!({}),
            "InternalServerError",
            508,
            "the request came back to this gateway too often",
        ),
        seen(
            "chat",
            last("429"),
            json!({}),
            "RateLimitError",
            429,
            "backup failed on purpose",
        ),
        seen(
            "chat",
            last("401"),
            json!({}),
            "AuthenticationError",
            401,
            "backup failed on purpose",
        ),
        seen(
            "chat_stream",
            last("500"),
            json!({}),
            "InternalServerError",
            500,
            "backup failed on purpose",
        ),
        seen(
            "chat",
            last("reset"),
            json!({}),
            "InternalServerError",
            502,
            "no model service could be reached",
        ),
        seen(
            "responses",
            last("reset"),
            json!({}),
            "InternalServerError",
            502,
            "no model service could be reached",
        ),
        seen(
            "chat",
            last("hang"),
            json!({}),
            "InternalServerError",
            504,
            "no model service answered in time",
        ),
        seen(
            "chat_stream",
            last("hang"),
            json!({}),
            "InternalServerError",
            504,
            "no model service answered in time",
        ),
    ]
}

fn anthropic_errors() -> Vec<Seen> {
    let all = openai_errors().into_iter();
    all.filter(|seen| seen.call.starts_with("chat"))
        .map(|seen| Seen {
            call: if seen.call == "chat" {
                "messages"
            } else {
                "messages_stream"
            },
            class: if seen.status == 504 {
                "GatewayTimeoutError"
            } else {
                seen.class
            },
            ..seen
        })
        .collect()
}

async fn openai_programs_see_errors_as_they_expect_them(mode: Mode) {
    errors(mode, "openai", &openai_errors());
}

async fn anthropic_programs_see_errors_as_they_expect_them(mode: Mode) {
    errors(mode, "anthropic", &anthropic_errors());
}

fn errors(mode: Mode, sdk: &str, cases: &[Seen]) {
    let stack = Stack::start(mode, |plugin| {
        let fallback = &mut plugin["model_apis"][0]["fallback"];
        fallback["request_timeout_ms"] = 1_500.into();
        fallback["client_models"] = json!({});
        let policy = json!({"deny": {"models": ["secret"]}});
        plugin["access"] = json!({"identity_header": "x-team", "default_policy": policy});
        plugin["max_hops"] = 1.into();
    });
    let asked: Vec<_> = cases
        .iter()
        .map(|case| json!({"call": case.call, "model": "m", "headers": case.headers, "body": case.body}))
        .collect();
    for (case, seen) in cases.iter().zip(run(&stack, sdk, &asked)) {
        let expected = format!("{} {}: {}", case.call, case.status, case.class);
        assert_eq!(seen["status"], case.status, "{expected}: {seen}");
        assert_eq!(seen["error"][0], case.class, "{expected}: {seen}");
        let message = seen["message"].as_str().unwrap();
        assert!(message.contains(case.text), "{expected}: {seen}");
        assert_eq!(
            attempts_of(&seen).is_empty(),
            [400, 403, 508].contains(&case.status),
            "{expected}: {seen}"
        );
    }
}

fn attempts_of(seen: &Value) -> String {
    without_times(
        seen["headers"]["x-ai-fallback-attempts"]
            .as_str()
            .unwrap_or_default(),
    )
}

/// Makes these calls with an SDK, one after the other, and returns what a program sees of each.
fn run(stack: &Stack, sdk: &str, calls: &[Value]) -> Vec<Value> {
    let mut client = Command::new(python())
        .arg(project().join("tests/sdk/client.py"))
        .args([sdk, &format!("http://{}", stack.addr())])
        // The SDKs must not find another server, or a proxy, in the environment.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python runs");
    let mut input = client.stdin.take().expect("piped");
    calls
        .iter()
        .for_each(|call| writeln!(input, "{call}").expect("the client reads"));
    drop(input);
    let output = client.wait_with_output().expect("the client ends");
    assert!(output.status.success());
    let lines = output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty());
    let seen: Vec<_> = lines
        .map(|line| serde_json::from_slice(line).expect("JSON"))
        .collect();
    assert_eq!(seen.len(), calls.len());
    seen
}

fn python() -> PathBuf {
    let path = std::env::var_os("AI_FALLBACK_PYTHON");
    let path = path.map_or_else(|| project().join(".venv/bin/python"), PathBuf::from);
    assert!(
        path.exists(),
        "no Python with the SDKs: run `make e2e`, or set AI_FALLBACK_PYTHON"
    );
    path
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
