//! The demo: a real Envoy with the filter, model services that fail on purpose, and real requests, shown one by one.
//! `make demo` runs it, `make demo KEEP=1` leaves everything up to try by hand.
//!
//! It fails where a row does not go as expected, so it is a test too. Rows know nothing of the dispatch mode: to compare
//! two modes, start a [`Stack`] for each, and [`run`] the same rows on both.

mod ask;
mod check;
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
use rows::Group;
use stack::{Ports, Stack};
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
    let ports = if keep { Ports::Fixed } else { Ports::Any };
    let table = Table::for_stdout();

    let stack = Stack::start("callout", ports)?;
    table.introduction(&stack);
    let began = Instant::now();
    let tally = run(&stack, rows::GROUPS, &table).await?;
    table.summary(&tally, began.elapsed());

    if keep {
        keep::explain(&stack);
        let ended = end_signal()?;
        tokio::select! {
            () = keep::until_make_is_gone() => {}
            () = ended => {}
        }
        drop(stack);
        println!("\nEverything is down.");
    } else if tally.is_good() {
        println!("Try it by hand: make demo KEEP=1");
    }
    Ok(tally.is_good())
}

/// Sends the request of each row, one after the other, and shows what came of it.
async fn run(stack: &Stack, groups: &[Group], table: &Table) -> Result<Tally, Box<dyn Error>> {
    let client = Client::new(stack)?;
    client.use_up_rate_limit().await?;
    let mut tally = Tally::default();
    for group in groups {
        table.heading(group.title);
        for row in group.rows {
            let id = format!("demo-{}", tally.rows + 1);
            let answer = client.ask(row, &id).await;
            let problems = check::problems(row, &answer, stack, &id);
            tally.add(&answer, &problems);
            table.row(tally.rows, row, &answer, &problems);
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
