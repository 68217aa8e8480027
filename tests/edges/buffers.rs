//! Envoy's buffers have a limit that the filter cannot see. Whatever is larger must not harm anything: where a host call
//! makes a buffer too large, Envoy answers the client within that call, and calls the filter within its own call.

use crate::client::Request;
use crate::mock::Mock;
use crate::stack::{Mode, Stack, chat, chat_stream, clusters, gateway, new_id};
use serde_json::Value;

in_each_mode!(
    a_fallback_answer_may_be_larger_than_the_buffer,
    a_body_may_grow_beyond_the_buffer,
    comments_may_be_more_than_the_buffer_holds,
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
            // Nothing of it is in Envoy's buffer while it grows.
            let expected = ("primary;200".to_owned(), "a-much-longer-name");
            let model = answer.model().unwrap();
            assert_eq!((answer.attempts(), model.as_str()), expected);
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

async fn comments_may_be_more_than_the_buffer_holds(mode: Mode) {
    let stack = small(mode, |_| {});
    let id = new_id("comments");
    let request = Request::chat(&id).header("x-mock-primary", "comments=3000,gap=0");
    let answer = stack.ask(request.body(chat_stream(&id))).await;
    // While it waits for a first packet the filter holds what comes, and Envoy answers 500 where that is too much.
    assert!([200, 500].contains(&answer.status), "{answer:?}");
    stack.assert_unharmed().await;
}
