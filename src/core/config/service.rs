//! Model services: an Envoy cluster, and how a request is fitted to it.

use std::fmt;
use std::rc::Rc;

use hashbrown::HashMap;

use super::credentials::CredentialNames;
use super::error::quoted;
use super::header::{self, Env};
use super::path_template::PathTemplate;
use super::pattern::Pattern;
use super::reader::{Item, Problems};

const FIELDS: &[&str] = &[
    "cluster",
    "authority",
    "path",
    "headers",
    "credentials",
    "remove_headers",
    "models",
];
const NAME: &str = "[a-z0-9][a-z0-9_-]*";

/// One model service.
#[derive(Clone, PartialEq)]
pub struct Service {
    /// Its name in the configuration; what the client reads in `x-ai-fallback-service`.
    pub name: String,
    /// The Envoy cluster that requests are sent to.
    pub cluster: String,
    /// The `:authority` to send; `None` keeps that of the request.
    pub authority: Option<String>,
    /// The path to send.
    pub path: PathTemplate,
    /// Headers to set, as (name in lower case, value), sorted by name. Environment variables are
    /// filled in. The values may be credentials: they must not be logged, and `Debug` leaves them
    /// out.
    pub headers: Vec<(String, String)>,
    /// Whether the client's own credentials are sent.
    pub credentials: Credentials,
    /// The names of what the client's credentials are.
    pub credential_names: Rc<CredentialNames>,
    /// Client headers that are not sent, in lower case.
    removed_headers: Vec<Pattern>,
    /// The names this service knows models by.
    models: HashMap<String, Rc<str>>,
}

/// Whose credentials a service is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// The service's own (set by `headers` or by Envoy); the client's are removed.
    Service,
    /// The client's, as they came.
    Client,
}

impl Service {
    /// The name this service knows the requested model by, where it has one of its own.
    #[must_use]
    pub fn model_name(&self, requested: &str) -> Option<&Rc<str>> {
        self.models.get(requested)
    }

    /// Whether a header of the client, by its name in lower case, stays behind since this service is not to get it.
    #[must_use]
    pub fn removes_header(&self, name: &str) -> bool {
        if self.credentials == Credentials::Service && self.credential_names.has_header(name) {
            return true;
        }
        !self.removed_headers.is_empty()
            && !name.starts_with(':')
            && !header::KEPT.contains(&name)
            && self
                .removed_headers
                .iter()
                .any(|pattern| pattern.matches(name.as_bytes()))
    }

    /// Reads the service called `name`; it is `None` where that is not a name.
    pub(super) fn read(
        name: Option<&str>,
        item: &Item<'_>,
        env: Env<'_>,
        credential_names: &Rc<CredentialNames>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let fields = item.fields(problems, "an object with the field `cluster`", FIELDS)?;
        let expected = "the name of an Envoy cluster";
        let cluster = fields.required(problems, "cluster", expected, |item, p| {
            word(item, p, expected)
        });
        let authority = fields.optional(problems, "authority", authority);
        let path = fields.optional(problems, "path", path);
        let headers = fields.optional(problems, "headers", |item, p| {
            Some(header::read_set(item, env, p))
        });
        let credentials = match fields.word(problems, "credentials", &["service", "client"]) {
            Some("client") => Credentials::Client,
            _ => Credentials::Service,
        };
        let expected = "a list of header names, at least one";
        let removed_headers =
            fields.list(problems, "remove_headers", expected, header::read_removed);
        let models = fields.optional(problems, "models", models);
        Some(Service {
            name: name?.to_owned(),
            cluster: cluster?.to_owned(),
            authority,
            path: path.unwrap_or_else(PathTemplate::unchanged),
            headers: headers.unwrap_or_default(),
            credentials,
            credential_names: Rc::clone(credential_names),
            removed_headers,
            models: models.unwrap_or_default(),
        })
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("cluster", &self.cluster)
            .field("authority", &self.authority)
            .field("path", &self.path)
            .field("header_names", &names)
            .field("credentials", &self.credentials)
            .field("removed_headers", &self.removed_headers)
            .field("models", &self.models)
            .finish()
    }
}

/// Checks the name of a service or a Model API: they are part of header values, so few characters
/// are allowed.
pub(super) fn check_name<'a>(
    name: &'a str,
    path: &str,
    problems: &mut Problems,
) -> Option<&'a str> {
    let inner =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if name.is_empty() || name.starts_with(['_', '-']) || !name.bytes().all(inner) {
        return problems.report(path, "bad name", &quoted(name), NAME);
    }
    Some(name)
}

/// Text without white space.
fn word<'a>(item: &Item<'a>, problems: &mut Problems, expected: &str) -> Option<&'a str> {
    let text = item.text(problems, expected)?;
    if text.contains(char::is_whitespace) {
        return problems.report(&item.path, "white space", &quoted(text), expected);
    }
    Some(text)
}

fn authority(item: &Item<'_>, problems: &mut Problems) -> Option<String> {
    let expected = "a host name or address, with `:port` where needed";
    let text = word(item, problems, expected)?;
    if text.contains(['/', '@', '?', '#']) {
        return problems.report(&item.path, "bad authority", &quoted(text), expected);
    }
    Some(text.to_owned())
}

fn path(item: &Item<'_>, problems: &mut Problems) -> Option<PathTemplate> {
    let text = item.any_text(problems, "a path that starts with `/` or `{path}`")?;
    match PathTemplate::parse(text) {
        Ok(template) => Some(template),
        Err(expected) => problems.report(&item.path, "bad path template", &quoted(text), &expected),
    }
}

fn models(item: &Item<'_>, problems: &mut Problems) -> Option<HashMap<String, Rc<str>>> {
    let entries = item.entries(problems, "an object of model names");
    let expected = "the name of a model";
    let names = entries.iter().filter_map(|(requested, item)| {
        // Names that metrics and logs may show.
        let requested = item.check_text(requested, problems, expected)?;
        let known = item.text(problems, expected)?;
        Some((requested.to_owned(), known.into()))
    });
    Some(names.collect())
}
