//! A real Envoy process.

use super::gateway::Gateway;
use super::{LIMIT, wait_until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

const LOG_LINES_SHOWN: usize = 60;

// Ctrl-C goes to this shell too, and must not end it before Envoy.
const WATCHDOG: &str = r#"trap '' INT TERM HUP; read -r _; kill -9 "$0"; rm -rf "$1""#;

/// A running Envoy. Clones are handles to the same process, which ends with the last of them, or with the test process.
#[derive(Clone)]
pub struct Envoy {
    process: Arc<Process>,
    admin: SocketAddr,
}

impl Envoy {
    /// Starts Envoy with a bootstrap in JSON or YAML, and waits until it accepts connections. Panics with its log where it
    /// does not come up. Listeners and admin should have port 0.
    pub fn start(bootstrap: &str) -> Envoy {
        let process = Process::spawn(bootstrap);
        let admin_file = process.folder.join("admin");
        let mut admin = None;
        wait_until("Envoy has an admin address", || {
            process.assert_running();
            admin = read_address(&admin_file);
            admin.is_some()
        });
        let envoy = Envoy {
            process: Arc::new(process),
            admin: admin.expect("waited for"),
        };
        wait_until("Envoy is live", || {
            envoy.process.assert_running();
            envoy.is_live()
        });
        envoy
    }

    /// A handle to the Envoy of this static, started by whoever asks first.
    pub fn shared(slot: &'static OnceLock<Envoy>, gateway: impl FnOnce() -> Gateway) -> Envoy {
        slot.get_or_init(|| gateway().start()).clone()
    }

    /// Lets Envoy check a bootstrap. The error is all that it printed.
    pub fn validate(bootstrap: &str) -> Result<(), String> {
        let folder = new_folder();
        let output = Command::new(envoy_bin())
            .args(["--mode", "validate", "--concurrency", "1", "-c"])
            .arg(write_bootstrap(&folder, bootstrap))
            .stdin(Stdio::null())
            .output()
            .expect("Envoy runs");
        let _ = fs::remove_dir_all(&folder);
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    /// Whether the Envoy that is used has what `dispatch: router` needs; says so once where it has not.
    pub fn has_router_mode() -> bool {
        static ANSWER: OnceLock<bool> = OnceLock::new();
        *ANSWER.get_or_init(|| {
            let (major, minor) = Envoy::version();
            let supported = (major, minor) >= (1, 39);
            if !supported {
                eprintln!("skipped: dispatch: router needs Envoy 1.39, this is {major}.{minor}");
            }
            supported
        })
    }

    /// The version of the Envoy that is used: major and minor.
    pub fn version() -> (u32, u32) {
        let output = Command::new(envoy_bin())
            .arg("--version")
            .output()
            .expect("Envoy runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // `/path/of/envoy  version: HASH/1.40.0/Clean/RELEASE/BoringSSL`
        let build = text.split("version: ").nth(1);
        let version = build.and_then(|build| build.split('/').nth(1));
        let mut parts = version
            .expect("a version")
            .split('.')
            .map(|part| part.parse().expect("a number"));
        let mut part = || parts.next().expect("major and minor");
        (part(), part())
    }

    /// Where a path is at the gateway: the listener that [`Gateway`] makes.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr())
    }

    /// The address of the listener that [`Gateway`] makes.
    pub fn addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.listener_port(Gateway::LISTENER)).into()
    }

    /// The port that a listener was given. Panics where there is none of that name.
    pub fn listener_port(&self, name: &str) -> u16 {
        let text = self.admin("/listeners?format=json");
        let listeners: Value = serde_json::from_str(&text).expect("JSON from the admin page");
        let port = listeners["listener_statuses"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["name"] == name))
            .and_then(|one| one["local_address"]["socket_address"]["port_value"].as_u64());
        port.and_then(|port| u16::try_from(port).ok())
            .unwrap_or_else(|| panic!("no listener {name} in {text}"))
    }

    /// All counters and gauges.
    pub fn stats(&self) -> BTreeMap<String, u64> {
        self.admin("/stats")
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// One counter or gauge; 0 where Envoy does not have it (yet).
    pub fn counter(&self, name: &str) -> u64 {
        self.stats().get(name).copied().unwrap_or(0)
    }

    /// A metric of the filter: its name, and labels that it must have, as in `requests result=skipped`. Summed over all
    /// that are so; 0 where there is none (yet).
    pub fn metric(&self, what: &str) -> u64 {
        let wanted: Vec<&str> = what.split(' ').collect();
        let is_wanted = |stat: &str| {
            let Some(own) = stat.strip_prefix("wasmcustom.ai_fallback.") else {
                return false;
            };
            let parts: Vec<&str> = own.split('.').collect();
            parts.first() == wanted.first() && wanted.iter().all(|part| parts.contains(part))
        };
        let stats = self.stats().into_iter();
        stats
            .filter(|(name, _)| is_wanted(name))
            .map(|(_, value)| value)
            .sum()
    }

    /// Everything that Envoy logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Whether a line with this text was logged so far.
    pub fn log_contains(&self, text: &str) -> bool {
        self.log().contains(text)
    }

    /// The address of the admin page.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// The text of an admin page. Panics where the admin listener does not answer.
    pub fn admin(&self, path: &str) -> String {
        self.try_admin(path)
            .unwrap_or_else(|error| panic!("admin {path}: {error}"))
    }

    fn is_live(&self) -> bool {
        // Live comes first: only once the workers have started does a listener accept.
        self.try_admin("/ready")
            .is_ok_and(|text| text.trim() == "LIVE")
            && self.counter("listener_manager.workers_started") == 1
    }

    fn try_admin(&self, path: &str) -> Result<String, reqwest::Error> {
        let url = format!("http://{}{path}", self.admin);
        let fetch = async {
            let client = reqwest::Client::builder().no_proxy().timeout(LIMIT);
            client.build()?.get(url).send().await?.text().await
        };
        // On a thread of its own: the caller may be inside a runtime already.
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .expect("a runtime")
                        .block_on(fetch)
                })
                .join()
                .expect("no panic")
        })
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of Envoy's log\n{}", self.process.log_tail());
        }
    }
}

struct Process {
    pid: u32,
    envoy: Mutex<Child>,
    watchdog: Child,
    folder: PathBuf,
}

impl Process {
    fn spawn(bootstrap: &str) -> Process {
        let folder = new_folder();
        let log = File::create(folder.join("log")).expect("a log file");
        let envoy = Command::new(envoy_bin())
            .arg("-c")
            .arg(write_bootstrap(&folder, bootstrap))
            .arg("--admin-address-path")
            .arg(folder.join("admin"))
            .args(["--concurrency", "2", "--disable-hot-restart"])
            .args(["--log-level", "warning"])
            .args(["--component-log-level", "wasm:info"])
            // Access logs are written soon, not after 10 seconds.
            .args(["--file-flush-interval-msec", "50"])
            // Out of reach of a Ctrl-C, which is for us alone to act on.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("Envoy starts");
        Process {
            pid: envoy.id(),
            watchdog: watch(envoy.id(), &folder),
            envoy: Mutex::new(envoy),
            folder,
        }
    }

    fn assert_running(&self) {
        let mut envoy = self.envoy.lock().expect("no panic while held");
        if let Some(status) = envoy.try_wait().expect("a child of ours") {
            panic!("Envoy ended ({status}):\n{}", self.log_tail());
        }
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The watchdog first, while the process id is surely still Envoy's.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        if let Ok(envoy) = self.envoy.get_mut() {
            let _ = envoy.kill();
            let _ = envoy.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Ends a process and removes its folder when this one ends, even by a signal: the kernel then closes our end of the pipe
/// that the watchdog reads. (A parent-death signal would not do: it follows the thread that started the process, and tests
/// run on many.)
pub fn watch(pid: u32, folder: &Path) -> Child {
    Command::new("sh")
        .args(["-c", WATCHDOG])
        .arg(pid.to_string())
        .arg(folder)
        // Outlives a `kill -9` of our whole group too.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell")
}

fn envoy_bin() -> PathBuf {
    if let Some(path) = std::env::var_os("ENVOY_BIN") {
        return path.into();
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let version = fs::read_to_string(project.join("envoy-version")).expect("the pinned version");
    let path = project.join(format!(".envoy/{}/envoy/_bin/envoy", version.trim()));
    assert!(path.exists(), "no Envoy: run `make envoy` or set ENVOY_BIN");
    path
}

/// An empty folder of this test process.
pub fn new_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let parent = option_env!("CARGO_TARGET_TMPDIR")
        .map(PathBuf::from)
        .unwrap_or_else(std::env::temp_dir);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = parent.join(format!("envoy-{}-{number}", std::process::id()));
    // One may be left of an earlier process with this id.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn write_bootstrap(folder: &Path, bootstrap: &str) -> PathBuf {
    // Envoy picks the parser by the name.
    let is_json = bootstrap.trim_start().starts_with('{');
    let path = folder.join(if is_json { "envoy.json" } else { "envoy.yaml" });
    fs::write(&path, bootstrap).expect("the configuration is written");
    path
}

fn read_address(file: &Path) -> Option<SocketAddr> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}
