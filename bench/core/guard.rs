//! `make bench-guard`: counts the instructions of each hot path of the core under callgrind, and fails where they have grown.
//! A count is the same on a slow or busy machine, so CI can tell.
//!
//!     guard COUNTS            compares with the file
//!     guard COUNTS --update   writes the file anew
//!     guard --run CASE        runs one case, for callgrind

mod cases;
#[path = "../src/prompt.rs"]
mod prompt;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::process::{Command, ExitCode};

/// How much a count may grow. A compiler of another version changes them by a little.
const TOLERANCE: f64 = 0.05;

type Counts = BTreeMap<String, u64>;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--run", case] => run(case)?,
        [file, "--update"] => fs::write(file, to_text(&count_all()?))?,
        [file] => return compare(&from_text(&fs::read_to_string(file)?)?, &count_all()?),
        _ => return Err("usage: guard COUNTS [--update]".into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn run(name: &str) -> Result<(), Box<dyn Error>> {
    let (_, make) = cases::CASES
        .iter()
        .find(|(own, _)| *own == name)
        .ok_or("no such case")?;
    let mut case = make();
    // What is done only once is not a cost of each request.
    case();
    measured(&mut *case);
    Ok(())
}

/// Callgrind counts in here alone, by this name.
#[inline(never)]
fn measured(case: &mut dyn FnMut()) {
    case();
}

fn count_all() -> Result<Counts, Box<dyn Error>> {
    cases::CASES
        .iter()
        .map(|(name, _)| Ok(((*name).to_owned(), count(name)?)))
        .collect()
}

fn count(case: &str) -> Result<u64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        // The C library copies bytes in the way that suits the CPU, which is not what is measured.
        .env(
            "GLIBC_TUNABLES",
            "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-ERMS,-FSRM",
        )
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", "--toggle-collect=*guard::measured*"])
        .arg(std::env::current_exe()?)
        .args(["--run", case])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // `==123== Collected : 4567`
    let count = said
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, count)| count.trim().parse().ok())
        .filter(|count| *count > 0);
    count.ok_or_else(|| format!("{case}: callgrind counted nothing:\n{said}").into())
}

fn compare(before: &Counts, now: &Counts) -> Result<ExitCode, Box<dyn Error>> {
    println!("{:<22}{:>12}{:>12}{:>9}", "", "before", "now", "");
    let mut failed = before.keys().ne(now.keys());
    if failed {
        println!("the cases are not those of the file");
    }
    for (case, now) in now {
        let Some(before) = before.get(case) else {
            continue;
        };
        let growth = *now as f64 / *before as f64 - 1.0;
        let grown = growth > TOLERANCE;
        let verdict = match growth {
            _ if grown => "  grown",
            _ if growth < -TOLERANCE => "  less: UPDATE=1 records it",
            _ => "",
        };
        println!(
            "{case:<22}{before:>12}{now:>12}{:>8.1}%{verdict}",
            100.0 * growth
        );
        failed |= grown;
    }
    if !failed {
        return Ok(ExitCode::SUCCESS);
    }
    println!("where it is meant to be so: make bench-guard UPDATE=1");
    Ok(ExitCode::FAILURE)
}

fn to_text(counts: &Counts) -> String {
    let mut text = "# Instructions, as `make bench-guard UPDATE=1` counted them.\n".to_owned();
    for (case, count) in counts {
        text.push_str(&format!("{case} {count}\n"));
    }
    text
}

fn from_text(text: &str) -> Result<Counts, Box<dyn Error>> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (case, count) = line.split_once(' ').ok_or("a line without a count")?;
            Ok((case.to_owned(), count.parse()?))
        })
        .collect()
}
