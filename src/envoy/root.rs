//! The root of a plugin: its configuration, its ticks, and the streams it makes.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use super::host;
use super::plugin_config;
use super::request_filter::RequestFilter;
use super::worker::Worker;
use crate::core::config::{Config, ConfigError};

/// The root context of one plugin in one worker.
pub struct Root {
    worker: Option<Rc<Worker>>,
}

impl Root {
    /// A root that is not configured yet.
    #[must_use]
    pub fn new(_id: u32) -> Self {
        Self { worker: None }
    }
}

impl RootContext for Root {
    /// False refuses the configuration: a starting Envoy stops, a running one keeps what it had.
    fn on_configure(&mut self, _: usize) -> bool {
        match configuration() {
            Ok(config) => {
                self.worker = Some(Rc::new(Worker::new(config)));
                true
            }
            Err(errors) => {
                errors.iter().for_each(|error| log::error!("{error}"));
                false
            }
        }
    }

    fn on_tick(&mut self) {
        if let Some(worker) = &self.worker {
            worker.on_tick();
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        match &self.worker {
            Some(worker) => Some(Box::new(RequestFilter::new(id, Rc::clone(worker)))),
            // Envoy makes no stream for a plugin that refused its configuration. The SDK panics on
            // `None`.
            None => Some(Box::new(Bystander)),
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, _: usize, body_size: usize, _: usize) {
        if let Some(worker) = &self.worker {
            worker.on_call_answer(token, body_size);
        }
    }
}

/// A stream that nothing is done with.
struct Bystander;

impl Context for Bystander {}
impl HttpContext for Bystander {}

fn configuration() -> Result<Config, Vec<ConfigError>> {
    let node = plugin_config::read(&host::plugin_configuration()).map_err(|error| vec![error])?;
    // On WASI this reads the environment of the VM, which Envoy's configuration sets.
    Config::parse(&node, &|name| std::env::var(name).ok())
}
