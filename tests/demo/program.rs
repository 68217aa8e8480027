//! The demo: a real Envoy with the filter, model services that fail on purpose, and real requests, shown one by one.
//! `make demo` runs it, `make demo KEEP=1` leaves everything up to try by hand.
//!
//! It fails where a row does not go as expected, so it is a test too. Rows know nothing of the dispatch mode: there is a
//! [`Stack`] for each mode, and the same rows [`run`] on both.

mod ask;
mod check;
mod compare;
mod keep;
#[path = "../mock/mod.rs"]
mod mock;
mod rows;
mod stack;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::time::Instant;

use ask::Client;
use check::Tally;
use stack::{Dispatch, Ports, Stack};
use table::Table;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    match run_demo().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The demo, up to its end or a signal.
async fn run_demo() -> Result<bool, Box<dyn Error>> {
    let ended = end_signal()?;
    tokio::select! {
        // A signal while the stack is kept up is a good end.
        biased;
        shown = demo() => shown,
        () = ended => Ok(false),
    }
}

/// Whether all went as expected. The stack ends with this future.
async fn demo() -> Result<bool, Box<dyn Error>> {
    let keep = std::env::var("KEEP").is_ok_and(|keep| !matches!(keep.as_str(), "" | "0"));
    let ports = |first| if keep { Ports::From(first) } else { Ports::Any };
    let table = Table::for_stdout();

    let callout = Stack::start(Dispatch::Callout, ports(18000))?;
    let version = callout.envoy_version();
    let mut stacks = vec![callout];
    if has_router(&version) {
        stacks.insert(0, Stack::start(Dispatch::Router, ports(18010))?);
    }
    table.introduction(&version);
    let mut good = shown_rows(&stacks, &table).await?;
    if stacks.len() > 1 {
        good &= both_modes(&stacks, &table).await?;
    } else {
        println!(
            "No part 2: dispatch: router needs Envoy 1.39, which can choose another cluster for a retry."
        );
    }

    if keep {
        keep::explain(&stacks);
        let ended = end_signal()?;
        tokio::select! {
            () = keep::until_make_is_gone() => {}
            () = ended => {}
        }
        drop(stacks);
        println!("\nEverything is down.");
    } else if good {
        println!("Try it by hand: make demo KEEP=1");
    }
    Ok(good)
}

/// Shows the rows on the first stack.
async fn shown_rows(stacks: &[Stack], table: &Table) -> Result<bool, Box<dyn Error>> {
    let Some(stack) = stacks.first() else {
        return Ok(false);
    };
    table.rows(stack.dispatch);
    let began = Instant::now();
    let tally = run(stack, table, Shown::All).await?;
    table.summary(&tally, began.elapsed());
    Ok(tally.is_good())
}

/// Compares the modes, and sends the rows again to each stack but the first.
async fn both_modes(stacks: &[Stack], table: &Table) -> Result<bool, Box<dyn Error>> {
    let mut good = compare::run(stacks, table).await?.is_good();
    for stack in stacks.iter().skip(1) {
        let began = Instant::now();
        let tally = run(stack, table, Shown::Wrong).await?;
        table.quiet_summary(stack.dispatch, &tally, began.elapsed());
        good &= tally.is_good();
    }
    Ok(good)
}

/// The router can choose another cluster for a retry from 1.39 on. A version that is not told is taken for a new one.
fn has_router(envoy_version: &str) -> bool {
    let mut numbers = envoy_version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (1, 39),
        _ => true,
    }
}

/// Which rows are shown.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    All,
    /// Those that did not go as expected.
    Wrong,
}

/// Sends the request of each row, one after the other, and shows what came of it.
async fn run(stack: &Stack, table: &Table, shown: Shown) -> Result<Tally, Box<dyn Error>> {
    let client = Client::new(stack)?;
    client.use_up_rate_limit().await?;
    let mut tally = Tally::default();
    for group in rows::GROUPS {
        if shown == Shown::All {
            table.heading(group.title);
        }
        for row in group.rows {
            let id = format!("demo-{}", tally.rows + 1);
            let answer = client.ask(row, &id).await;
            let problems = check::problems(row, &answer, stack, &id);
            tally.add(&answer, &problems);
            if shown == Shown::All || !problems.is_empty() {
                table.row(tally.rows, row, &answer, &problems);
            }
        }
    }
    Ok(tally)
}

/// Takes the signals over at once; the future is their coming.
fn end_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}
