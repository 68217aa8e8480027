//! The load and the mock services of `make bench`, in one process on one thread: cheap, so that the gateway is what is
//! measured, and with one clock, so that a chunk can be timed from the service to the client.
//!
//! Prints the ports of the two services as a line of JSON. Then each line of JSON on stdin is a [`Command`], and its result
//! is one line on stdout: raw numbers, times in nanoseconds.

mod clock;
mod load;
mod mock;
mod prompt;

use std::error::Error;

use load::{Command, Load};
use mock::Mock;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let primary = Mock::start("primary").await?;
    let fallback = Mock::start("fallback").await?;
    println!(
        "{}",
        json!({"primary": primary.port, "fallback": fallback.port})
    );
    let mut load = Load::default();
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let command: Command = serde_json::from_str(&line)?;
        primary.play(command.primary);
        fallback.play(command.fallback);
        let result: Value = load.run(command).await;
        println!("{result}");
    }
    Ok(())
}
