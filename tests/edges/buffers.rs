//! Envoy's buffers have a limit that the filter cannot see. Whatever is larger must not harm anything: where a host call
//! makes a buffer too large, Envoy answers the client within that call, and calls the filter within its own call.

use crate::client::Request;
use crate::mock::Mock;
use crate::stack::{Mode, Stack, chat, chat_stream, clusters, gateway, new_id};
use crate::support::eventually;
use serde_json::Value;

in_each_mode!(
    a_fallback_answer_may_be_larger_than_the_buffer,
    a_body_may_grow_beyond_the_buffer,
    comments_may_be_more_than_the_buffer_holds,
    a_request_that_envoy_does_not_hold_is_told_with_the_numbers,
);

const BUFFER: u32 = 16_384;

fn small(mode: Mode, change: impl FnOnce(&mut Value)) -> Stack {
    let (primary, backup) = (Mock::start("primary"), Mock::start("backup"));
    let gateway = gateway(mode, clusters(&primary, &backup), change).buffer_limit(BUFFER);
    Stack::of(&gateway, primary, backup)
}

async fn a_fallback_answer_may_be_larger_than_the_buffer(mode: Mode) {
    let stacks = [
        (small(mode, |_| {}), 100_000),
        (Stack::start(mode, |_| {}), 3_000_000),
    ];
    for (stack, size) in stacks {
        for fault in [
            "503",
            "503,empty",
            "503,size=15000",
            "503,size=200000",
            "reset",
            "503,stall",
        ] {
            let id = new_id("large");
            let request = Request::chat(&id)
                .header("x-mock-primary", fault)
                .header("x-mock-backup", format!("size={size}"));
            let answer = stack.ask(request.body(chat(&id))).await;
            assert_eq!(answer.status, 200, "{fault}");
            assert_eq!(answer.model(), Some(id), "{fault}");
            assert!(answer.body.len() > size, "{fault}");
            stack.assert_no_failure();
        }
        stack.assert_unharmed().await;
    }
}

async fn a_body_may_grow_beyond_the_buffer(mode: Mode) {
    let rename = |plugin: &mut Value| {
        plugin["max_body_bytes"] = BUFFER.into();
        plugin["services"]["primary"]["models"] = serde_json::json!({"m": "a-much-longer-name"});
    };
    let stack = small(mode, rename);
    for missing in [20, 10, 1, 0] {
        for chunked in [false, true] {
            let id = new_id("grows");
            let size = BUFFER as usize - missing;
            let body = format!(
                r#"{{"a":"{}","model":"m"}}"#,
                "x".repeat(size - r#"{"a":"","model":"m"}"#.len())
            );
            assert_eq!(body.len(), size);
            let request = match chunked {
                false => Request::chat(&id).body(&body),
                true => Request::chat(&id)
                    .chunked(&body.as_bytes().chunks(1_000).collect::<Vec<_>>(), ""),
            };
            let answer = stack.ask(request).await;
            stack.assert_no_failure();
            // Where the new body is too large for it, Envoy answers 413 itself, and that falls back. An attempt filter makes
            // its body in the cluster, where no such answer comes.
            let grows = mode == Mode::Router || missing == 20;
            let expected = match grows {
                true => ("primary;200".to_owned(), "a-much-longer-name"),
                false => ("primary;intercepted, backup;200".to_owned(), "m"),
            };
            assert_eq!(
                (answer.attempts(), answer.model().unwrap().as_str()),
                expected
            );
            stack.assert_no_failure();
        }
    }
    stack
        .on_both_workers(|_| async {
            assert_eq!(
                stack
                    .ask(Request::chat("fine").body(chat("n")))
                    .await
                    .status,
                200
            );
        })
        .await;
}

/// Whoever reads the line can see which limit is the one too many.
async fn a_request_that_envoy_does_not_hold_is_told_with_the_numbers(mode: Mode) {
    let limits = |plugin: &mut Value| {
        plugin["buffer_limit_bytes"] = 200_000.into();
        plugin["max_body_bytes"] = 100_000.into();
    };
    let stack = small(mode, limits);
    let lines = || -> Vec<String> {
        let log = stack.envoy.log();
        let all = log
            .lines()
            .filter(|line| line.contains("event=buffer_limit "));
        all.map(str::to_owned).collect()
    };
    let large = chat(&"x".repeat(3 * BUFFER as usize));
    for chunked in [false, true] {
        let before = lines().len();
        let id = new_id("large");
        let request = match chunked {
            false => Request::chat(&id).body(&large),
            true => {
                Request::chat(&id).chunked(&large.as_bytes().chunks(1_000).collect::<Vec<_>>(), "")
            }
        };
        let answer = stack.ask(request).await;
        assert_eq!((answer.status, answer.attempts()), (413, String::new()));
        eventually("it is told", || lines().len() > before).await;
        let told = lines();
        let (_, told) = told[before].split_once("event=buffer_limit ").unwrap();
        let (numbers, advice) = told.split_once(": ").unwrap();
        let [held, body, buffer] = numbers.split(' ').collect::<Vec<_>>()[..] else {
            panic!("three numbers: {numbers}");
        };
        assert_eq!(
            (body, buffer),
            ("max_body_bytes=100000", "buffer_limit_bytes=200000")
        );
        // What the filter was shown before: the piece that is too much it never sees.
        let held: usize = held.strip_prefix("held_bytes=").unwrap().parse().unwrap();
        assert!(held < large.len(), "{numbers}");
        assert!(
            advice.contains("per_connection_buffer_limit_bytes"),
            "{advice}"
        );
        assert!(stack.primary.requests_with(&id).is_empty());
    }
    // What is larger than the filter reads is not held, and so passes.
    let id = new_id("larger");
    let larger = chat(&"x".repeat(100_000));
    let answer = stack.ask(Request::chat(&id).body(&larger)).await;
    assert_eq!(answer.attempts(), "primary;200;too_large");
    assert_eq!(lines().len(), 2);
    stack.assert_unharmed().await;
}

async fn comments_may_be_more_than_the_buffer_holds(mode: Mode) {
    let stack = small(mode, |_| {});
    let id = new_id("comments");
    let request = Request::chat(&id).header("x-mock-primary", "comments=3000,gap=0");
    let answer = stack.ask(request.body(chat_stream(&id))).await;
    // While it waits for a first packet the filter holds what comes, and Envoy answers 500 where that is too much.
    assert!([200, 500].contains(&answer.status), "{answer:?}");
    stack.assert_unharmed().await;
}
