//! What workers tell each other of failing services, through Envoy's shared data.

use std::time::Duration;

use ai_fallback::core::config::Cooldown;
use ai_fallback::core::cooldown::{Report, Sign, Table};
use ai_fallback::envoy::cooldown::Cooling;

use crate::emulator::{Plugin, Root, Vm};
use crate::gateway::{config, ms};

const KEY: &str = "ai_fallback.cooldown.ai_fallback";
const RULES: Cooldown = Cooldown {
    failures: 3,
    time: ms(30_000),
    max_retry_after: ms(300_000),
};

/// Workers of one Envoy, each with its own VM.
struct Workers {
    vm: Vm,
    config: String,
}

/// What one of them has.
struct Worker {
    root: Root,
    cooling: Cooling,
}

impl Workers {
    fn start() -> (Self, Worker) {
        let config = config().to_string();
        let register = ai_fallback::envoy::register;
        let vm = Vm::start_plugin(register, plugin(&config, "ai_fallback")).unwrap();
        let root = vm.root();
        let mut workers = Self { vm, config };
        let worker = workers.worker(root);
        (workers, worker)
    }

    fn another(&mut self, name: &str) -> Worker {
        let root = self.vm.add_root(plugin(&self.config, name)).unwrap();
        self.worker(root)
    }

    fn worker(&mut self, root: Root) -> Worker {
        let services = || ["openai", "qwen"].map(str::to_owned).into();
        let cooling = self.vm.within(root, || Cooling::new(RULES, services()));
        Worker { root, cooling }
    }

    fn say(&mut self, worker: &Worker, service: &str, sign: Sign) {
        let service = service.to_owned();
        self.say_all(worker, &[Report { service, sign }]);
    }

    fn say_all(&mut self, worker: &Worker, reports: &[Report]) {
        let report = || worker.cooling.report(reports);
        self.vm.within(worker.root, report);
    }

    fn fail(&mut self, worker: &Worker, times: usize) {
        for _ in 0..times {
            self.say_all(worker, &[failure()]);
        }
    }

    /// How long this worker skips the service.
    fn skips(&mut self, worker: &Worker, service: &str) -> Option<Duration> {
        let now = self.vm.now();
        let table = self.vm.within(worker.root, || worker.cooling.read());
        Some(table.cooling_until(service, now)? - now)
    }

    fn probes(&mut self, worker: &Worker) -> bool {
        self.vm
            .within(worker.root, || worker.cooling.begin_probe("openai"))
    }

    fn refresh(&mut self, worker: &Worker) -> bool {
        self.vm.within(worker.root, || worker.cooling.refresh())
    }

    fn end(&mut self, worker: Worker) {
        self.vm.within(worker.root, || drop(worker.cooling));
    }

    fn cools(&self) -> u64 {
        self.vm.metric("cooling model_service=openai")
    }

    fn lines(&self) -> Vec<String> {
        let lines = self.vm.logs().into_iter().map(|(_, line)| line);
        lines.filter(|line| line.starts_with("event=")).collect()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.vm.violations(), [""; 0]);
        }
    }
}

fn failure() -> Report {
    Report {
        service: "openai".to_owned(),
        sign: Sign::Failing,
    }
}

fn plugin<'a>(config: &'a str, name: &'a str) -> Plugin<'a> {
    Plugin {
        vm_id: "ai_fallback",
        root_id: "ai_fallback",
        name,
        config: config.as_bytes(),
        ..Plugin::default()
    }
}

#[test]
fn failures_on_several_workers_count_together_and_all_workers_skip_the_service() {
    let (mut workers, first) = Workers::start();
    let second = workers.another("ai_fallback");
    workers.fail(&first, 1);
    workers.fail(&second, 1);
    assert_eq!(workers.skips(&first, "openai"), None);
    workers.fail(&first, 1);
    for worker in [&first, &second] {
        assert_eq!(workers.skips(worker, "openai"), Some(RULES.time));
        assert_eq!(workers.skips(worker, "qwen"), None);
        assert!(!workers.probes(worker));
    }
    assert_eq!(workers.vm.metric("cooldowns"), 1);
    assert_eq!(
        workers.lines(),
        ["event=cooling service=openai for_ms=30000"]
    );
    workers.vm.advance(RULES.time);
    assert!(workers.probes(&second));
    assert!(!workers.probes(&first), "one request at a time");
    workers.say(&second, "openai", Sign::Alive);
    assert!(workers.probes(&first) && workers.probes(&second));
    assert_eq!(workers.vm.shared_data("ai_fallback", KEY), Some(vec![]));
    assert_eq!(workers.lines()[1..], ["event=healthy service=openai"]);
}

#[test]
fn what_one_request_says_of_several_services_is_one_read_and_one_write() {
    let (mut workers, worker) = Workers::start();
    workers.vm.reset_host_calls();
    let report = |service: &str, seconds| Report {
        service: service.to_owned(),
        sign: Sign::RetryAfter(Duration::from_secs(seconds)),
    };
    workers.say_all(&worker, &[report("openai", 7), report("qwen", 1_000)]);
    let calls = workers.vm.host_calls();
    assert_eq!(calls.of("proxy_get_shared_data"), 1);
    assert_eq!(calls.of("proxy_set_shared_data"), 1);
    assert_eq!(workers.skips(&worker, "openai"), Some(ms(7_000)));
    assert_eq!(workers.skips(&worker, "qwen"), Some(RULES.max_retry_after));
}

#[test]
fn nothing_is_written_where_nothing_changes() {
    let (mut workers, worker) = Workers::start();
    workers.vm.reset_host_calls();
    workers.say_all(&worker, &[]);
    assert_eq!(workers.vm.host_calls().total(), 0);
    workers.say(&worker, "openai", Sign::Alive);
    assert!(workers.probes(&worker));
    workers.say(&worker, "qwen", Sign::RetryAfter(ms(9_000)));
    workers.say(&worker, "qwen", Sign::RetryAfter(ms(2_000)));
    workers.say(&worker, "qwen", Sign::Failing);
    let calls = workers.vm.host_calls();
    assert_eq!(calls.of("proxy_set_shared_data"), 1);
    assert_eq!(calls.of("proxy_record_metric"), 2, "two services, once");
    assert_eq!(workers.skips(&worker, "qwen"), Some(ms(9_000)));
}

#[test]
fn a_worker_that_is_slower_starts_from_what_the_faster_one_wrote() {
    let (mut workers, worker) = Workers::start();
    let now = workers.vm.now();
    let mut table = Table::default();
    let others = [1, 2].map(|_| {
        let _ = table.report(&failure(), now, &RULES);
        table.encode()
    });
    // The first write finds no data when it reads, and some when it writes.
    workers.vm.others_write_first(others);
    workers.fail(&worker, 1);
    assert_eq!(workers.skips(&worker, "openai"), Some(RULES.time));
    assert_eq!(workers.vm.host_calls().of("proxy_set_shared_data"), 3);
    assert_eq!(workers.vm.metric("cooldowns"), 1);

    // What was true before the other one wrote is not told.
    workers.vm.advance(RULES.time);
    assert!(workers.probes(&worker));
    let probing = workers.vm.shared_data("ai_fallback", KEY).unwrap();
    workers.vm.others_write_first([probing]);
    workers.say(&worker, "openai", Sign::Alive);
    assert_eq!(workers.lines()[1..], ["event=healthy service=openai"]);
}

#[test]
fn a_worker_gives_up_where_others_are_always_faster() {
    let (mut workers, worker) = Workers::start();
    workers.say(&worker, "openai", Sign::RetryAfter(ms(1)));
    let cooling = workers.vm.shared_data("ai_fallback", KEY).unwrap();
    workers.vm.advance(ms(1));
    let others = || std::iter::repeat_n(cooling.clone(), 8);
    workers.vm.others_write_first(others());
    assert!(!workers.probes(&worker), "it may not be the only one");
    workers.vm.others_write_first(others());
    workers.say(&worker, "openai", Sign::Alive);
    assert_eq!(workers.vm.shared_data("ai_fallback", KEY), Some(cooling));
    assert_eq!(workers.lines().len(), 1, "what is lost is not told");
    assert!(workers.probes(&worker));
}

#[test]
fn bytes_that_are_no_table_are_replaced() {
    let (mut workers, worker) = Workers::start();
    workers.vm.write_shared_data("ai_fallback", KEY, b"\x01odd");
    assert_eq!(workers.skips(&worker, "openai"), None);
    workers.fail(&worker, 3);
    assert_eq!(workers.skips(&worker, "openai"), Some(RULES.time));
}

#[test]
fn a_worker_that_starts_anew_finds_what_is_known() {
    let (mut workers, first) = Workers::start();
    let second = workers.another("ai_fallback");
    workers.fail(&first, 3);
    workers.vm.crash(second.root);
    std::mem::forget(second);
    workers.vm.advance(ms(10_000));
    let again = workers.another("ai_fallback");
    for worker in [&first, &again] {
        assert_eq!(workers.skips(worker, "openai"), Some(ms(20_000)));
    }
}

#[test]
fn plugins_and_vms_keep_their_services_apart() {
    let (mut workers, first) = Workers::start();
    workers.fail(&first, 3);
    let other_name = workers.another("other");
    assert_eq!(workers.skips(&other_name, "openai"), None);
    let plugin = Plugin {
        vm_id: "other",
        ..plugin(&workers.config, "ai_fallback")
    };
    let root = workers.vm.add_root(plugin).unwrap();
    let other_vm = workers.worker(root);
    assert_eq!(workers.skips(&other_vm, "openai"), None);
}

#[test]
fn the_gauge_follows_what_any_worker_tells() {
    let (mut workers, first) = Workers::start();
    let second = workers.another("ai_fallback");
    assert!(!workers.refresh(&first) && !workers.refresh(&second));
    workers.fail(&first, 3);
    assert_eq!((workers.cools(), workers.refresh(&second)), (1, true));
    assert_eq!(workers.vm.metric("cooling model_service=qwen"), 0);

    workers.vm.advance(RULES.time);
    assert!(!workers.refresh(&first), "it may be used");
    assert_eq!(workers.cools(), 0);
    assert!(workers.probes(&first));
    assert_eq!((workers.refresh(&first), workers.cools()), (true, 1));

    let third = workers.another("ai_fallback");
    workers.say(&third, "openai", Sign::Alive);
    assert_eq!(workers.cools(), 0);
    assert!(!workers.refresh(&first) && !workers.refresh(&second));

    workers.vm.reset_host_calls();
    assert!(!workers.refresh(&first));
    let calls = workers.vm.host_calls();
    assert_eq!(calls.of("proxy_record_metric"), 0, "nothing to tell");
}

#[test]
fn a_worker_that_goes_takes_its_gauge_back() {
    let (mut workers, first) = Workers::start();
    let second = workers.another("ai_fallback");
    workers.fail(&first, 3);
    workers.end(first);
    assert_eq!(workers.cools(), 0);
    assert!(workers.refresh(&second));
    assert_eq!(workers.cools(), 1, "it still cools");
    // As after a panic: what it has told stands until a worker starts.
    workers.vm.crash(second.root);
    std::mem::forget(second);
    workers.vm.advance(RULES.time);
    let again = workers.another("ai_fallback");
    assert!(!workers.refresh(&again));
    assert_eq!(workers.cools(), 0);
}
