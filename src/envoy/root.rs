//! The root of a plugin: its configuration, its ticks, and the streams it makes.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use super::attempt_filter::AttemptFilter;
use super::attempts::Attempts;
use super::host;
use super::metrics::Metrics;
use super::plugin_config;
use super::request_filter::RequestFilter;
use super::worker::Worker;
use crate::core::config::{Config, ConfigError};

/// The root context of one plugin in one worker.
pub struct Root {
    id: u32,
    role: Option<Role>,
}

impl Root {
    /// The root with this context id.
    #[must_use]
    pub fn new(id: u32) -> Self {
        Self { id, role: None }
    }
}

/// What the plugin is, by its `root_id`.
enum Role {
    /// `ai_fallback`
    Requests(Rc<Worker>),
    /// `ai_fallback_attempt`
    Attempts(Rc<Attempts>),
}

impl RootContext for Root {
    /// False refuses the configuration: a starting Envoy stops, a running one keeps what it had.
    fn on_configure(&mut self, _: usize) -> bool {
        let role = configuration().and_then(|(config, version)| {
            Role::new(self.id, config, version).map_err(|error| vec![error])
        });
        if let Err(errors) = &role {
            errors.iter().for_each(|error| log::error!("{error}"));
        }
        self.role = role.ok();
        self.role.is_some()
    }

    fn on_tick(&mut self) {
        match &self.role {
            Some(Role::Requests(worker)) => worker.on_tick(),
            Some(Role::Attempts(attempts)) => attempts.on_tick(),
            None => {}
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        match &self.role {
            Some(Role::Requests(worker)) => {
                Some(Box::new(RequestFilter::new(id, Rc::clone(worker))))
            }
            Some(Role::Attempts(attempts)) => {
                Some(Box::new(AttemptFilter::new(id, Rc::clone(attempts))))
            }
            // Envoy makes no stream for a plugin that refused its configuration. The SDK panics on
            // `None`.
            None => Some(Box::new(Bystander)),
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, _: usize, body_size: usize, _: usize) {
        if let Some(Role::Requests(worker)) = &self.role {
            worker.on_call_answer(token, body_size);
        }
    }
}

impl Role {
    fn new(id: u32, config: Config, version: u32) -> Result<Self, ConfigError> {
        let metrics = |role| Metrics::new(role, version);
        let root_id = host::property(&["plugin_root_id"]).unwrap_or_default();
        match root_id.as_slice() {
            b"ai_fallback" => Ok(Self::Requests(Rc::new(Worker::new(
                id,
                config,
                metrics("request"),
            )))),
            b"ai_fallback_attempt" => Ok(Self::Attempts(Rc::new(Attempts::new(
                config,
                metrics("attempt"),
            )))),
            other => Err(ConfigError::new(
                "root_id",
                "unknown role",
                format!("{:?}", String::from_utf8_lossy(other)),
                "\"ai_fallback\" or \"ai_fallback_attempt\"",
            )),
        }
    }
}

/// A stream that nothing is done with.
struct Bystander;

impl Context for Bystander {}
impl HttpContext for Bystander {}

/// The configuration, and its version.
fn configuration() -> Result<(Config, u32), Vec<ConfigError>> {
    let node = plugin_config::read(&host::plugin_configuration()).map_err(|error| vec![error])?;
    // On WASI this reads the environment of the VM, which Envoy's configuration sets.
    let config = Config::parse(&node, &|name| std::env::var(name).ok())?;
    Ok((config, node.version()))
}
