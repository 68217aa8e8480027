//! What the user wrote, made into a plan that cannot be wrong.
//!
//! [`Node`] is what was written, [`Config::parse`] checks it. All errors are found in one pass,
//! each a [`ConfigError`] with its path. A [`Config`] is built once and shared; nothing in it is
//! cloned for a request.

mod access;
mod cooldown;
mod credentials;
mod error;
mod error_set;
mod fallback;
mod header;
mod matching;
mod model_api;
mod node;
mod normal_path;
mod path_template;
mod pattern;
mod reader;
mod service;
mod services;
mod status_set;
mod telemetry;

use std::rc::Rc;

pub use access::{Access, Policy};
pub use cooldown::Cooldown;
pub use credentials::{
    CredentialNames, SUBPROTOCOL_HEADER, percent_decoded, without_secret_subprotocols,
};
pub use error::ConfigError;
pub use error_set::ErrorSet;
pub use fallback::{ClientControls, ClientModels, Deliver, Fallback, Retry};
pub use matching::{Candidates, KNOWN_PATHS};
pub use model_api::{ModelApi, ModelChoice, Primary, Target};
pub use node::Node;
pub use normal_path::normal_paths;
pub use path_template::PathTemplate;
pub use pattern::Pattern;
pub use service::{Credentials, Service};
pub use status_set::StatusSet;
pub use telemetry::Telemetry;

use header::Env;
use matching::Index;
use reader::{Item, Problems};
use services::Services;

const FIELDS: &[&str] = &[
    "dispatch",
    "buffer_limit_bytes",
    "max_body_bytes",
    "max_hops",
    "credential_names",
    "services",
    "model_apis",
    "access",
    "cooldown",
    "telemetry",
];
const MODEL_APIS: &str = "a list of Model APIs, at least one";
/// Envoy's own default for a listener.
const BUFFER_LIMIT_BYTES: u32 = 1 << 20;
/// More than a Wasm VM can hold for a few requests at once.
const BUFFER_LIMIT_BYTES_LIMIT: i32 = 1 << 30;
const MAX_BODY_BYTES_LIMIT: i32 = 256 << 20;
const MAX_HOPS: u32 = 0;

/// The checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// How a fallback is made.
    pub dispatch: Dispatch,
    /// What Envoy buffers of a request or an answer at most, in bytes, from 1 to 1 GiB. `max_body_bytes` and
    /// `max_held_bytes` are within it.
    pub buffer_limit_bytes: usize,
    /// The configuration says so. Where it does not, the limit may be a lower one: that of a gateway's listeners is often 32
    /// KiB.
    pub has_buffer_limit: bool,
    /// The largest request body that is read, in bytes, from 1 to 256 MiB.
    pub max_body_bytes: usize,
    /// The services, sorted by name. At least one.
    pub services: Vec<Rc<Service>>,
    /// The Model APIs, in their order. At least one.
    pub model_apis: Vec<Rc<ModelApi>>,
    /// Who may use what; `None`: everybody everything.
    pub access: Option<Access>,
    /// When a failing service is skipped for a time; `None`: never.
    pub cooldown: Option<Cooldown>,
    /// What the filter tells of a request, beyond its metrics.
    pub telemetry: Telemetry,
    /// How often a request may come through this filter; `None`: as often as it likes.
    pub max_hops: Option<u32>,
    index: Index,
}

/// How a fallback is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispatch {
    /// By a callout for each attempt after the first.
    Callout,
    /// By Envoy's router, which is told where each attempt goes.
    Router,
}

impl Config {
    /// Checks what the user wrote. `env` looks up an environment variable of the VM.
    ///
    /// # Errors
    /// Everything that is wrong, at least one error.
    pub fn parse(
        node: &Node,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Config, Vec<ConfigError>> {
        let mut problems = Problems::default();
        let config = read(&Item::root(node), env, &mut problems);
        config.filter(|_| problems.0.is_empty()).ok_or(problems.0)
    }

    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Rc<Service>> {
        let found = self
            .services
            .binary_search_by(|service| service.name.as_str().cmp(name));
        self.services.get(found.ok()?)
    }

    /// The name of the first service in a cluster; `primary` for a cluster of no service.
    #[must_use]
    pub fn name_in_cluster(&self, cluster: &str) -> &str {
        let mut services = self.services.iter();
        let found = services.find(|service| service.cluster == cluster);
        found.map_or("primary", |service| &service.name)
    }

    /// Whether a service sets a header of this name, in lower case, on its requests.
    #[must_use]
    pub fn sets_header(&self, name: &str) -> bool {
        let mut all = self.services.iter().flat_map(|service| &service.headers);
        all.any(|(own, _)| own == name)
    }

    /// The Model APIs that a request may belong to: those whose path and headers fit.
    ///
    /// `header` looks up the value of a header by its name in lower case. It is asked only for
    /// headers that a Model API of this path wants. Nothing is allocated where no path fits.
    pub fn candidates<V: AsRef<[u8]>>(
        &self,
        path_and_query: &[u8],
        header: impl Fn(&str) -> Option<V>,
    ) -> Candidates {
        self.index.candidates(path_and_query, header)
    }
}

fn read(item: &Item<'_>, env: Env<'_>, problems: &mut Problems) -> Option<Config> {
    let fields = item.fields(
        problems,
        "an object with the fields `services` and `model_apis`",
        FIELDS,
    )?;
    let dispatch = match fields.word(problems, "dispatch", &["callout", "router"]) {
        Some("router") => Dispatch::Router,
        _ => Dispatch::Callout,
    };
    let buffer_limit = fields.count(
        problems,
        "buffer_limit_bytes",
        1..=BUFFER_LIMIT_BYTES_LIMIT,
        BUFFER_LIMIT_BYTES,
    );
    // The rest is for what comes in one piece: Envoy adds it to its buffer before a filter sees it.
    let default = (buffer_limit / 4 * 3).clamp(1, MAX_BODY_BYTES_LIMIT.unsigned_abs());
    let range = 1..=MAX_BODY_BYTES_LIMIT;
    let max_body_bytes =
        fields.within_buffer(problems, "max_body_bytes", range, default, buffer_limit);
    let max_hops = fields.count(problems, "max_hops", 0..=100, MAX_HOPS);
    let names = fields.optional(problems, "credential_names", CredentialNames::read);
    let names = Rc::new(names.unwrap_or_default());
    let services = fields.required(problems, "services", services::EXPECTED, |item, p| {
        Some(Services::read(item, env, &names, p))
    });
    let services = services.unwrap_or_default();
    let model_apis = fields.required(problems, "model_apis", MODEL_APIS, |item, p| {
        Some(read_model_apis(item, &services, buffer_limit, p))
    });
    let access = fields.optional(problems, "access", |item, p| {
        Access::read(item, &services, p)
    });
    let cooldown = fields.optional(problems, "cooldown", Cooldown::read);
    let telemetry = fields.optional(problems, "telemetry", Telemetry::read);
    let model_apis = model_apis?;
    let index = Index::new(&model_apis);
    Some(Config {
        dispatch,
        buffer_limit_bytes: buffer_limit as usize,
        has_buffer_limit: fields.has("buffer_limit_bytes"),
        max_body_bytes: max_body_bytes as usize,
        services: services.into_sorted(),
        model_apis,
        access,
        cooldown,
        telemetry: telemetry.unwrap_or_default(),
        max_hops: (max_hops > 0).then_some(max_hops),
        index,
    })
}

fn read_model_apis(
    item: &Item<'_>,
    services: &Services,
    buffer_limit: u32,
    problems: &mut Problems,
) -> Vec<Rc<ModelApi>> {
    let mut names = Vec::new();
    let mut index = 0;
    item.list(problems, MODEL_APIS, |item, p| {
        let api = ModelApi::read(index, item, services, buffer_limit, &mut names, p);
        index += 1;
        api.map(Rc::new)
    })
}
