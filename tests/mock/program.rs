//! The mock model services as a program, to try things by hand. See `README.md`.

#[path = "mod.rs"]
mod mock;

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::process::ExitCode;

use mock::{Mock, Refused, ServerTls, Spec, TestCa};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str =
    "usage: mock_services [--service NAME=ADDR[,SPEC]]... [--tls-service NAME=ADDR[,SPEC]]...
                     [--refuse ADDR]... [--ca-out FILE] [--tls-name HOST]...

  --service      a model service on ADDR (IP:PORT); SPEC is what it does by default
  --tls-service  the same with TLS
  --refuse       an address that refuses connections
  --ca-out       where to write the certificate that TLS clients must trust
  --tls-name     a further host name of the TLS certificates (localhost and 127.0.0.1 are in)";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mock_services: {error}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    // Before the ready lines: who reads them may end the program at once.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let options = Options::parse(std::env::args().skip(1))?;
    let _running = options.start()?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[derive(Default)]
struct Options {
    services: Vec<Listen>,
    refused: Vec<SocketAddr>,
    ca_out: Option<String>,
    tls_names: Vec<String>,
}

struct Listen {
    name: String,
    addr: SocketAddr,
    spec_text: String,
    spec: Spec,
    tls: bool,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options::default();
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag}: no value"))?;
            let wrong = |why: String| format!("{flag} {value}: {why}");
            match flag.as_str() {
                "--service" => options.services.push(listen(&value, false).map_err(wrong)?),
                "--tls-service" => options.services.push(listen(&value, true).map_err(wrong)?),
                "--refuse" => options.refused.push(address(&value).map_err(wrong)?),
                "--ca-out" => options.ca_out = Some(value),
                "--tls-name" => options.tls_names.push(value),
                _ => return Err(format!("unknown flag {flag}")),
            }
        }
        if options.services.is_empty() && options.refused.is_empty() {
            return Err("no service".to_owned());
        }
        Ok(options)
    }

    fn start(&self) -> Result<(Vec<Mock>, Vec<Refused>), Box<dyn Error>> {
        let ca = TestCa::new();
        if let Some(file) = &self.ca_out {
            fs::write(file, ca.pem()).map_err(|error| format!("{file}: {error}"))?;
        }
        let mut names = vec!["localhost", "127.0.0.1"];
        names.extend(self.tls_names.iter().map(String::as_str));
        let tls = ca.server(&names);
        let services = self.services.iter();
        let services = services
            .map(|listen| listen.start(&tls))
            .collect::<Result<_, _>>()?;
        let refused = self.refused.iter();
        let refused = refused
            .map(|addr| refuse(*addr))
            .collect::<Result<_, _>>()?;
        Ok((services, refused))
    }
}

impl Listen {
    fn start(&self, tls: &ServerTls) -> Result<Mock, String> {
        let tls = self.tls.then(|| tls.clone());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mock = Mock::start_on(self.addr, &self.name, self.spec.clone(), tls)
            .map_err(|error| format!("{}: {error}", self.addr))?;
        let does = if self.spec_text.is_empty() {
            "good answers"
        } else {
            &self.spec_text
        };
        println!("{} ready on {scheme}://{}: {does}", self.name, mock.addr());
        Ok(mock)
    }
}

/// `NAME=ADDR[,SPEC]`
fn listen(value: &str, tls: bool) -> Result<Listen, String> {
    let (name, rest) = value.split_once('=').ok_or("no NAME=ADDR")?;
    let (addr, spec_text) = rest.split_once([',', ';']).unwrap_or((rest, ""));
    Ok(Listen {
        name: name.to_owned(),
        addr: address(addr)?,
        spec_text: spec_text.to_owned(),
        spec: spec_text.parse()?,
        tls,
    })
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

fn refuse(addr: SocketAddr) -> Result<Refused, String> {
    let refused = Refused::on(addr).map_err(|error| format!("{addr}: {error}"))?;
    println!("refusing on {}", refused.addr());
    Ok(refused)
}
