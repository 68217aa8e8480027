//! A real Prometheus.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::files;
use crate::queries::Query;
use crate::support::{new_folder, wait_until, watch};

/// How often it reads the gateways.
const INTERVAL: &str = "1s";

/// A Prometheus that reads gateways as the project's own configuration says, but often. It ends when this is dropped.
pub struct Prometheus {
    http: reqwest::Client,
    addr: SocketAddr,
    process: Child,
    watchdog: Child,
    folder: PathBuf,
}

/// A result of a query.
struct Series {
    labels: BTreeSet<String>,
    value: f64,
}

impl Prometheus {
    /// Starts it, and waits until it answers. `gateways`: addresses of their admin pages.
    pub fn start(gateways: &[SocketAddr]) -> Prometheus {
        let folder = new_folder();
        let config = folder.join("prometheus.yml");
        fs::write(&config, configuration(gateways)).expect("a configuration");
        let log = File::create(folder.join("log")).expect("a log file");
        let process = Command::new(prometheus_bin())
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:0")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Prometheus starts");
        let mut prometheus = Prometheus {
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client"),
            addr: ([127, 0, 0, 1], 0).into(),
            watchdog: watch(process.id(), &folder),
            process,
            folder,
        };
        wait_until("Prometheus is ready", || prometheus.find_address());
        prometheus
    }

    /// The address is in its log, which then says that it is ready.
    fn find_address(&mut self) -> bool {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        if let Some(status) = self.process.try_wait().expect("a child of ours") {
            panic!("Prometheus ended ({status}):\n{log}");
        }
        let line = log.lines().find(|line| line.contains("Listening on"));
        let mut words = line.unwrap_or_default().split_whitespace();
        let addr = words.find_map(|word| word.strip_prefix("address=")?.parse().ok());
        self.addr = addr.unwrap_or(self.addr);
        addr.is_some() && log.contains("Server is ready")
    }

    /// What no series has that these queries name: a metric, a label, or a value of a label.
    pub async fn unknown(&self, queries: &[Query]) -> Vec<String> {
        let mut problems = Vec::new();
        for query in queries {
            let mut labels = BTreeSet::new();
            for selector in query.selectors() {
                let found = self.ask(&selector).await.expect(&query.at);
                if found.is_empty() {
                    problems.push(format!("{}: no series is {selector}", query.at));
                }
                labels.extend(found.into_iter().flat_map(|series| series.labels));
            }
            let named = query.groups().into_iter().chain(query.labels.clone());
            let missing = named.filter(|label| !labels.contains(label));
            problems.extend(missing.map(|label| format!("{}: no label {label}", query.at)));
        }
        problems
    }

    /// The queries that result in no number.
    pub async fn without_numbers(&self, queries: &[Query]) -> Vec<String> {
        let mut problems = Vec::new();
        for Query { at, promql, labels } in queries {
            let found = match self.ask(promql).await {
                Ok(found) => found,
                Err(error) => panic!("{at}: {error}\n{promql}"),
            };
            let good = |series: &Series| {
                series.value.is_finite() && labels.iter().all(|label| series.labels.contains(label))
            };
            if !found.iter().any(good) {
                problems.push(format!("{at}: no number, or not with its labels\n{promql}"));
            }
        }
        problems
    }

    /// The error is what Prometheus says of the query.
    async fn ask(&self, promql: &str) -> Result<Vec<Series>, String> {
        let url = format!("http://{}/api/v1/query", self.addr);
        let request = self.http.get(url).query(&[("query", promql)]);
        let answer: Value = async { request.send().await?.json().await }
            .await
            .map_err(|error| error.to_string())?;
        match answer["data"]["result"].as_array() {
            Some(results) => Ok(results.iter().map(Series::read).collect()),
            None => Err(answer["error"].to_string()),
        }
    }
}

impl Series {
    /// `{"metric": {"LABEL": "…"}, "value": [TIME, "NUMBER"]}`
    fn read(result: &Value) -> Series {
        let labels = result["metric"].as_object().into_iter().flatten();
        let value = result["value"][1].as_str().map(str::parse);
        Series {
            labels: labels.map(|(name, _)| name.clone()).collect(),
            value: value.expect("a value").expect("a number"),
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        for process in [&mut self.watchdog, &mut self.process] {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Lets Prometheus check a configuration; panics with what it says.
pub fn check(file: &Path) {
    let output = Command::new(prometheus_bin().with_file_name("promtool"))
        .args(["check", "config"])
        .arg(file)
        .output()
        .expect("promtool is beside it");
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

/// The project's own configuration, for these gateways. JSON is YAML.
fn configuration(gateways: &[SocketAddr]) -> String {
    let mut config = files::yaml(files::SCRAPE);
    config["global"]["scrape_interval"] = INTERVAL.into();
    config["global"]["scrape_timeout"] = INTERVAL.into();
    let targets = gateways.iter().map(ToString::to_string).collect();
    config["scrape_configs"][0]["static_configs"][0]["targets"] = targets;
    config.to_string()
}

fn prometheus_bin() -> PathBuf {
    let path = std::env::var_os("PROMETHEUS_BIN").map_or_else(
        || files::path(".prometheus/usr/bin/prometheus"),
        PathBuf::from,
    );
    let shown = path.display();
    assert!(
        path.exists(),
        "no Prometheus at {shown}: run `make prometheus`, or name your own with PROMETHEUS_BIN"
    );
    path
}
