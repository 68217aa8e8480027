//! `make bench-core`: how long the hot paths of the core take on this machine.

mod cases;
#[path = "../src/prompt.rs"]
mod prompt;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for (name, make) in cases::CASES {
        let mut case = make();
        criterion.bench_function(name, |bencher| bencher.iter(&mut case));
    }
    criterion.final_summary();
}
