//! `KEEP=1`: what can be tried while the stack is up.

use std::os::unix::process::parent_id;
use std::time::Duration;

use crate::stack::{Dispatch, Stack};

/// A curl line: what it shows, its options, the path, further headers, and the body.
struct Try {
    shows: &'static str,
    options: &'static str,
    path: &'static str,
    header: &'static str,
    body: &'static str,
}

const CHAT: &str = "/v1/chat/completions";

/// On each gateway; the others are on the first alone.
const STREAM: Try = Try {
    shows: "",
    options: "-N",
    path: CHAT,
    header: " -H 'x-mock-qwen: chunks=9,gap=100'",
    body: r#"{"model": "gpt-4o!503", "stream": true}"#,
};

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

/// Prints lines to copy, and where to look. The stacks are one per dispatch mode.
pub fn explain(stacks: &[Stack]) {
    println!("\nEverything is up, until Ctrl-C. To try by hand:\n");
    for stack in stacks.iter().take(1) {
        for one in &TRIES {
            show(one, one.shows, stack);
        }
    }
    for stack in stacks {
        let shows = match stack.dispatch {
            Dispatch::Router => "A stream that comes by fallback, as it comes.",
            Dispatch::Callout => {
                "A stream that comes by fallback, by callout: all at once, at its end. All the lines above work here too."
            }
        };
        show(&STREAM, shows, stack);
    }
    for stack in stacks {
        places(stack);
    }
    println!("  all the faults       tests/mock/README.md");
}

fn show(one: &Try, shows: &str, stack: &Stack) {
    let url = stack.envoy.url(one.path);
    let json = "-H 'content-type: application/json'";
    println!("  # {shows}");
    println!("  curl {} {url} {json} \\", one.options);
    println!("   {} -d '{}'\n", one.header, one.body);
}

fn places(stack: &Stack) {
    let admin = stack.admin;
    println!("  With dispatch: {}", stack.dispatch.name());
    println!("  Envoy's admin page   http://{admin}/");
    println!("  the filter's counts  http://{admin}/stats?filter=ai_fallback");
    println!("  what a service got   as JSON:");
    for service in &stack.services {
        let url = service.url("/__requests");
        println!("    {:9}          {url}", service.name());
    }
    println!();
}

/// Waits until `make` ends without a signal to us (`kill -9`). Whoever starts the demo by hand is taken for `make`.
pub async fn until_make_is_gone() {
    let make = parent_id();
    while parent_id() == make {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
