//! What the user wrote, made into a plan that cannot be wrong.
//!
//! [`Node`] is what was written, [`Config::parse`] checks it. All errors are found in one pass,
//! each a [`ConfigError`] with its path. A [`Config`] is built once and shared; nothing in it is
//! cloned for a request.

mod error;
mod fallback;
mod header;
mod matching;
mod model_api;
mod node;
mod path_template;
mod pattern;
mod reader;
mod service;
mod status_set;

use std::rc::Rc;

use hashbrown::{HashMap, HashSet};

pub use error::ConfigError;
pub use fallback::Fallback;
pub use matching::{Candidates, KNOWN_PATHS};
pub use model_api::{ModelApi, ModelChoice, Primary, Target};
pub use node::Node;
pub use path_template::PathTemplate;
pub use pattern::Pattern;
pub use service::{Credentials, Service};
pub use status_set::StatusSet;

use header::Env;
use matching::Index;
use model_api::Services;
use reader::{Item, Problems};

const FIELDS: &[&str] = &["dispatch", "max_body_bytes", "services", "model_apis"];
const MAX_BODY_BYTES: usize = 1 << 20;
/// More than a Wasm VM can hold for a few requests at once.
const MAX_BODY_BYTES_LIMIT: i32 = 256 << 20;

/// The checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// How a fallback is made.
    pub dispatch: Dispatch,
    /// The largest request body that is read, in bytes, from 1 to 256 MiB.
    pub max_body_bytes: usize,
    /// The services, sorted by name. At least one.
    pub services: Vec<Rc<Service>>,
    /// The Model APIs, in their order. At least one.
    pub model_apis: Vec<Rc<ModelApi>>,
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
    let dispatch = fields.optional(problems, "dispatch", Dispatch::Callout, |item, p| {
        item.word(
            p,
            &[("callout", Dispatch::Callout), ("router", Dispatch::Router)],
        )
    });
    let max_body_bytes = fields.optional(problems, "max_body_bytes", MAX_BODY_BYTES, |item, p| {
        usize::try_from(item.integer(p, 1..=MAX_BODY_BYTES_LIMIT)?).ok()
    });
    let expected = "an object of services by name, at least one";
    let services = fields.required(problems, "services", expected, |item, p| {
        read_services(item, env, p)
    });
    let services = services.unwrap_or_default();
    let model_apis = fields.required(
        problems,
        "model_apis",
        "a list of Model APIs, at least one",
        |item, p| read_model_apis(item, &services, p),
    );
    let mut services: Vec<_> = services.0.into_values().flatten().collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let model_apis = model_apis?;
    let index = Index::new(&model_apis);
    Some(Config {
        dispatch: dispatch?,
        max_body_bytes: max_body_bytes?,
        services,
        model_apis,
        index,
    })
}

/// Every service that was written is in the result, also where it could not be read.
fn read_services(item: &Item<'_>, env: Env<'_>, problems: &mut Problems) -> Option<Services> {
    let expected = "an object of services by name, at least one";
    let entries = item.entries(problems, expected)?;
    if entries.is_empty() {
        return problems.report(&item.path, "empty object", "{}", expected);
    }
    let mut services = HashMap::new();
    for (key, item) in &entries {
        let name = service::check_name(key, &item.path, problems);
        let service = Service::read(name, item, env, problems).map(Rc::new);
        services.insert((*key).to_owned(), service);
    }
    Some(Services(services))
}

fn read_model_apis(
    item: &Item<'_>,
    services: &Services,
    problems: &mut Problems,
) -> Option<Vec<Rc<ModelApi>>> {
    let mut names = HashSet::new();
    let mut index = 0;
    item.list(problems, "a list of Model APIs, at least one", |item, p| {
        let api = ModelApi::read(index, item, services, &mut names, p);
        index += 1;
        api.map(Rc::new)
    })
}
