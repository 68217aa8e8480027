//! Model APIs: which requests the filter acts on, and what it does with them.

use std::rc::Rc;

use hashbrown::{HashMap, HashSet};

use super::error::{one_of, quoted};
use super::fallback::Fallback;
use super::header;
use super::pattern::Pattern;
use super::reader::{Fields, Item, Problems};
use super::service::{Service, check_name};

const FIELDS: &[&str] = &["name", "match", "primary", "fallback"];
const MATCH_FIELDS: &[&str] = &["paths", "models", "headers"];
const PRIMARY_FIELDS: &[&str] = &["service", "model"];
const NAME: &str = "the name of this Model API";
const PASS_THROUGH: &str = "pass-through";

/// One Model API.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelApi {
    /// Its name.
    pub name: String,
    /// Its place in the list, from 0: of the Model APIs that match, the lowest wins.
    pub index: usize,
    /// Paths, without the query; empty means the known Model API paths.
    pub paths: Vec<Pattern>,
    /// Models; empty means any, also none.
    pub models: Vec<Pattern>,
    /// Headers the request must have, as (name in lower case, exact value), sorted by name.
    pub headers: Vec<(String, String)>,
    /// Who is tried first.
    pub primary: Primary,
    /// Who is tried next; `None` where there is no fallback, or it is not enabled.
    pub fallback: Option<Fallback>,
}

/// Who is tried first.
#[derive(Debug, Clone, PartialEq)]
pub struct Primary {
    /// The service the request is fitted to; `None` where the route decides and nothing but the
    /// model is changed.
    pub service: Option<Rc<Service>>,
    /// The model to ask for.
    pub model: ModelChoice,
}

/// A service and the model to ask it for.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The service.
    pub service: Rc<Service>,
    /// The model to ask for.
    pub model: ModelChoice,
}

/// The model an attempt asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelChoice {
    /// The request's own.
    PassThrough,
    /// This one, in the place of the request's own.
    Named(String),
}

impl ModelApi {
    /// `names` are those of the Model APIs before this one.
    pub(super) fn read<'a>(
        index: usize,
        item: &Item<'a>,
        services: &Services,
        names: &mut HashSet<&'a str>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let fields = item.fields(problems, "an object with the field `name`", FIELDS)?;
        let name = fields.required(problems, "name", NAME, |item, p| read_name(item, names, p));
        let matching = fields.optional(problems, "match", Match::default(), Match::read);
        let primary = fields.optional(problems, "primary", Primary::ROUTE, |item, p| {
            Primary::read(item, services, p)
        });
        let fallback = fields.optional(problems, "fallback", None, |item, p| {
            Fallback::read(item, services, p)
        });
        let Match {
            paths,
            models,
            headers,
        } = matching?;
        let name = name?.to_owned();
        Some(ModelApi {
            name,
            index,
            paths,
            models,
            headers,
            primary: primary?,
            fallback: fallback?,
        })
    }
}

impl Primary {
    const ROUTE: Primary = Primary {
        service: None,
        model: ModelChoice::PassThrough,
    };

    fn read(item: &Item<'_>, services: &Services, problems: &mut Problems) -> Option<Self> {
        let fields = item.fields(
            problems,
            "an object with the fields `service` and `model`",
            PRIMARY_FIELDS,
        )?;
        let service = fields.optional(problems, "service", None, |item, p| {
            services.find(item, p).map(Some)
        });
        let model = ModelChoice::read(&fields, problems);
        Some(Primary {
            service: service?,
            model: model?,
        })
    }
}

impl ModelChoice {
    pub(super) fn read(fields: &Fields<'_>, problems: &mut Problems) -> Option<Self> {
        let expected = "the name of a model, or pass-through";
        fields.optional(
            problems,
            "model",
            ModelChoice::PassThrough,
            |item, p| match item.text(p, expected)? {
                PASS_THROUGH => Some(ModelChoice::PassThrough),
                name => Some(ModelChoice::Named(name.to_owned())),
            },
        )
    }
}

/// The services by name; `None` for one that could not be read, and no entry at all where
/// `services` could not be. Both are reported already, and a use of such a service is not reported
/// as well.
#[derive(Default)]
pub(super) struct Services(pub HashMap<String, Option<Rc<Service>>>);

impl Services {
    pub fn find(&self, item: &Item<'_>, problems: &mut Problems) -> Option<Rc<Service>> {
        let name = item.any_text(problems, "the name of a service")?;
        if let Some(service) = self.0.get(name) {
            return service.clone();
        }
        if self.0.is_empty() {
            return None;
        }
        let mut names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        names.sort_unstable();
        problems.report(
            &item.path,
            "unknown service",
            quoted(name),
            one_of(&names, '"', name),
        )
    }
}

#[derive(Default)]
struct Match {
    paths: Vec<Pattern>,
    models: Vec<Pattern>,
    headers: Vec<(String, String)>,
}

impl Match {
    fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        let fields = item.fields(
            problems,
            "an object with the fields `paths`, `models` and `headers`",
            MATCH_FIELDS,
        )?;
        let paths = fields.optional(problems, "paths", Vec::new(), |item, p| {
            item.list(p, "a list of paths, at least one", path_pattern)
        });
        let models = fields.optional(problems, "models", Vec::new(), |item, p| {
            item.list(p, "a list of models, at least one", pattern)
        });
        let headers = fields.optional(problems, "headers", Vec::new(), header::read_match);
        Some(Match {
            paths: paths?,
            models: models?,
            headers: headers?,
        })
    }
}

fn read_name<'a>(
    item: &Item<'a>,
    names: &mut HashSet<&'a str>,
    problems: &mut Problems,
) -> Option<&'a str> {
    let name = check_name(item.any_text(problems, NAME)?, &item.path, problems)?;
    if !names.insert(name) {
        return problems.report(
            &item.path,
            "duplicate name",
            quoted(name),
            "a name of its own",
        );
    }
    Some(name)
}

/// A path pattern is compared with a path without query, so that some could never match.
fn path_pattern(item: &Item<'_>, problems: &mut Problems) -> Option<Pattern> {
    let text = item.any_text(problems, "a path, with `*` for any run of characters")?;
    let expected = match text {
        _ if text.contains('?') => "a path without its query",
        _ if !text.is_empty() && !text.starts_with(['/', '*']) => {
            "a path that starts with `/` or `*`"
        }
        _ => return pattern(item, problems),
    };
    problems.report(&item.path, "bad pattern", quoted(text), expected)
}

fn pattern(item: &Item<'_>, problems: &mut Problems) -> Option<Pattern> {
    let text = item.any_text(problems, "a name, with `*` for any run of characters")?;
    match Pattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(expected) => problems.report(&item.path, "bad pattern", quoted(text), expected),
    }
}
