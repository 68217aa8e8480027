//! `KEEP=1`: what can be tried while the stack is up.

use std::os::unix::process::parent_id;
use std::time::Duration;

use crate::stack::Stack;

/// A curl line: what it shows, its options, the path, further headers, and the body.
struct Try {
    shows: &'static str,
    options: &'static str,
    path: &'static str,
    header: &'static str,
    body: &'static str,
}

const CHAT: &str = "/v1/chat/completions";

const TRIES: [Try; 5] = [
    Try {
        shows: "What stands after the ! is what the first service does: answer 503. Look at the x-ai-fallback headers.",
        options: "-i",
        path: CHAT,
        header: "",
        body: r#"{"model": "gpt-4o!503"}"#,
    },
    Try {
        shows: "A stream of 12 pieces, 300 ms apart, as it comes.",
        options: "-N",
        path: CHAT,
        header: "",
        body: r#"{"model": "gpt-4o!chunks=12,gap=300", "stream": true}"#,
    },
    Try {
        shows: "A stream that opens with 200 and then stays silent.",
        options: "-i",
        path: CHAT,
        header: "",
        body: r#"{"model": "gpt-4o!silence", "stream": true}"#,
    },
    Try {
        shows: "x-mock-NAME says it for one service: qwen resets the connection as well, so local answers.",
        options: "-i",
        path: CHAT,
        header: " -H 'x-mock-qwen: reset'",
        body: r#"{"model": "gpt-4o!429"}"#,
    },
    Try {
        shows: "Anthropic's API. Here x-mock makes every service fail, and the client gets the last error.",
        options: "-i",
        path: "/v1/messages",
        header: " -H 'x-mock: 529'",
        body: r#"{"model": "claude"}"#,
    },
];

/// Prints lines to copy, and where to look.
pub fn explain(stack: &Stack) {
    println!("\nEverything is up, until Ctrl-C. To try by hand:\n");
    for one in TRIES {
        let url = stack.envoy.url(one.path);
        let json = "-H 'content-type: application/json'";
        println!("  # {}", one.shows);
        println!("  curl {} {url} {json}{} \\", one.options, one.header);
        println!("    -d '{}'\n", one.body);
    }
    let admin = stack.admin;
    println!("  Envoy's admin page   http://{admin}/");
    println!("  the filter's counts  http://{admin}/stats?filter=ai_fallback");
    println!("  what a service got   as JSON:");
    for service in &stack.services {
        let url = service.url("/__requests");
        println!("    {:9}          {url}", service.name());
    }
    println!("  all the faults       tests/mock/README.md");
}

/// Waits until `make` ends without a signal to us (`kill -9`). Whoever starts the demo by hand is taken for `make`.
pub async fn until_make_is_gone() {
    let make = parent_id();
    while parent_id() == make {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
