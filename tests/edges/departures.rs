//! Clients that leave, in every phase of a request. Nothing is left behind: no stream, callout, deadline or exchange.

use crate::client::{Connection, Request};
use crate::mock::Mock;
use crate::stack::{Mode, Stack, chat, chat_stream, new_id};
use crate::support::eventually;
use futures_util::future::join_all;

in_each_mode!(clients_that_leave_at_any_time_leave_nothing_behind);

const CLIENTS: usize = 25;

/// Where a client is when it leaves.
struct Phase {
    name: &'static str,
    primary: &'static str,
    backup: &'static str,
    stream: bool,
    leaves: Leaves,
    /// Answers to callouts that come after the stream has gone, and reach the filter: with `callout` only.
    late_answers: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Leaves {
    /// In the middle of sending the body.
    WhileSending,
    /// As soon as the request is sent.
    AtOnce,
    /// Once the primary has the request.
    AtThePrimary,
    /// Once the fallback service has the request.
    AtTheBackup,
    /// Once the first bytes of the answer's body have come.
    InTheAnswer,
    /// Once the whole answer has come.
    Served,
}

const fn phase(
    name: &'static str,
    leaves: Leaves,
    stream: bool,
    primary: &'static str,
    backup: &'static str,
) -> Phase {
    Phase {
        name,
        primary,
        backup,
        stream,
        leaves,
        late_answers: 0,
    }
}

const PHASES: [Phase; 12] = [
    phase("sending", Leaves::WhileSending, false, "", ""),
    phase("sent", Leaves::AtOnce, false, "", ""),
    phase("sent, to fall back", Leaves::AtOnce, false, "503", ""),
    phase(
        "waits for the primary",
        Leaves::AtThePrimary,
        false,
        "hang",
        "",
    ),
    phase(
        "waits for a first packet",
        Leaves::AtThePrimary,
        true,
        "silence",
        "",
    ),
    phase(
        "hears comments only",
        Leaves::AtThePrimary,
        true,
        "comments",
        "",
    ),
    phase(
        "waits for a fallback",
        Leaves::AtTheBackup,
        false,
        "503",
        "hold",
    ),
    phase(
        "waits for a fallback after a reset",
        Leaves::AtTheBackup,
        true,
        "reset",
        "hold",
    ),
    // A callout that began in a tick belongs to the root, so its answer is not dropped with the stream.
    Phase {
        late_answers: CLIENTS as u64,
        ..phase(
            "waits for a fallback after a timeout",
            Leaves::AtTheBackup,
            true,
            "silence",
            "hold",
        )
    },
    phase("in a stream", Leaves::InTheAnswer, true, "gate=1", ""),
    phase(
        "in a whole answer",
        Leaves::InTheAnswer,
        false,
        "503",
        "size=3000000",
    ),
    phase("served", Leaves::Served, false, "503", ""),
];

async fn clients_that_leave_at_any_time_leave_nothing_behind(mode: Mode) {
    let stack = Stack::start(mode, |plugin| {
        let fallback = &mut plugin["model_apis"][0]["fallback"];
        // With `router` the last attempt has no more than this either.
        fallback["first_packet_timeout_ms"] = 3_000.into();
    });
    for phase in &PHASES {
        let ids: Vec<_> = (0..CLIENTS).map(|_| new_id("leaves")).collect();
        let clients = join_all(ids.iter().map(|id| go(&stack, phase, id))).await;
        if phase.leaves == Leaves::WhileSending {
            let active = || stack.envoy.counter("http.gateway.downstream_rq_active");
            eventually("all have begun", || active() == CLIENTS as u64).await;
        }
        drop(clients);
        eventually("Envoy has seen them leave", || {
            stack.envoy.counter("http.gateway.downstream_cx_active") == 0
        })
        .await;
        let before = stack.count("unknown_answers");
        if phase.backup == "hold" {
            // Envoy does not cancel the callouts of a stream that is gone: their answers come late, to nobody.
            ids.iter().for_each(|id| stack.backup.open_gate(id));
        }
        stack.settled().await;
        let late_answers = match mode {
            Mode::Callout => phase.late_answers,
            Mode::Router => 0,
        };
        let unknown = || stack.count("unknown_answers") - before;
        eventually("the late answers have come", || unknown() >= late_answers).await;
        stack.assert_unharmed().await;
        assert_eq!(unknown(), late_answers, "{}", phase.name);
    }
}

/// One client, up to where it leaves.
async fn go(stack: &Stack, phase: &Phase, id: &str) -> Connection {
    let body = match phase.stream {
        true => chat_stream(id),
        false => chat(id),
    };
    let request = Request::chat(id)
        .header("x-mock-primary", phase.primary)
        .header("x-mock-backup", phase.backup);
    let mut request = request.body(body);
    if phase.leaves == Leaves::WhileSending {
        request.truncate(request.len() - 10);
    }
    let mut client = Connection::open(stack.addr()).await;
    client.send(request).await;
    let arrived = async |mock: &Mock| {
        let whole = mock.wait_for_id(id, |all| all.iter().any(|request| request.complete));
        whole.await;
    };
    match phase.leaves {
        Leaves::WhileSending | Leaves::AtOnce => {}
        Leaves::AtThePrimary => arrived(&stack.primary).await,
        Leaves::AtTheBackup => arrived(&stack.backup).await,
        Leaves::InTheAnswer => client.read_past("{\"").await,
        Leaves::Served => {
            client.answer().await;
        }
    }
    client
}

/// The gauges are told on ticks, and ticks end with the last deadline: that must not be while there are streams.
#[tokio::test]
async fn a_stream_that_outlives_the_last_deadline_is_not_counted_for_ever() {
    let stack = Stack::start(Mode::Callout, |_| {});
    let id = new_id("long");
    let request = Request::chat(&id).header("x-mock-primary", "gate=1");
    let mut client = Connection::open(stack.addr()).await;
    client.send(request.body(chat_stream(&id))).await;
    client.read_past("data: ").await;
    eventually("the stream is counted", || {
        stack.count("active_requests") == 1
    })
    .await;
    stack.primary.open_gate(&id);
    client.read_past("[DONE]").await;
    stack.settled().await;
}
