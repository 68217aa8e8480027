//! Model APIs: which requests the filter acts on, and what it does with them.

use std::ops::RangeInclusive;
use std::rc::Rc;

use super::error::quoted;
use super::fallback::Fallback;
use super::header;
use super::pattern::Pattern;
use super::reader::{Fields, Item, Problems};
use super::service::{Service, check_name};
use super::services::Services;

const FIELDS: &[&str] = &["name", "match", "primary", "fallback"];
const MATCH_FIELDS: &[&str] = &["paths", "models", "headers"];
const PRIMARY_FIELDS: &[&str] = &["service", "model", "retries"];
const NAME: &str = "the name of this Model API";
const PASS_THROUGH: &str = "pass-through";
const RETRIES: RangeInclusive<i32> = 0..=10;

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
    /// How often it is tried again before others are.
    pub retries: u32,
}

/// A service and the model to ask it for.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The service.
    pub service: Rc<Service>,
    /// The model to ask for.
    pub model: ModelChoice,
    /// How often it is tried again before the next one is.
    pub retries: u32,
}

/// The model an attempt asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelChoice {
    /// The request's own.
    PassThrough,
    /// This one, in the place of the request's own.
    Named(Rc<str>),
}

impl ModelApi {
    /// `names` are those of the Model APIs before this one, sorted.
    pub(super) fn read<'a>(
        index: usize,
        item: &Item<'a>,
        services: &Services,
        buffer_limit: u32,
        names: &mut Vec<&'a str>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let fields = item.fields(problems, "an object with the field `name`", FIELDS)?;
        let name = fields.required(problems, "name", NAME, |item, p| read_name(item, names, p));
        let matching = fields.optional(problems, "match", Match::read);
        let primary = fields.optional(problems, "primary", |item, p| {
            Primary::read(item, services, p)
        });
        let fallback = fields.optional(problems, "fallback", |item, p| {
            Fallback::read(item, services, buffer_limit, p)
        });
        let Match {
            paths,
            models,
            headers,
        } = matching.unwrap_or_default();
        Some(ModelApi {
            name: name?.to_owned(),
            index,
            paths,
            models,
            headers,
            primary: primary.unwrap_or(Primary::ROUTE),
            fallback,
        })
    }
}

impl Primary {
    const ROUTE: Primary = Primary {
        service: None,
        model: ModelChoice::PassThrough,
        retries: 0,
    };

    fn read(item: &Item<'_>, services: &Services, problems: &mut Problems) -> Option<Self> {
        let fields = item.fields(
            problems,
            "an object with the fields `service` and `model`",
            PRIMARY_FIELDS,
        )?;
        Some(Primary {
            service: fields.optional(problems, "service", |item, p| services.find(item, p)),
            model: ModelChoice::read(&fields, problems),
            retries: read_retries(&fields, problems),
        })
    }
}

impl ModelChoice {
    pub(super) fn read(fields: &Fields<'_>, problems: &mut Problems) -> Self {
        let expected = "the name of a model, or pass-through";
        match fields.optional(problems, "model", |item, p| item.text(p, expected)) {
            None | Some(PASS_THROUGH) => ModelChoice::PassThrough,
            Some(name) => ModelChoice::Named(name.into()),
        }
    }
}

/// How often a service is tried again.
pub(super) fn read_retries(fields: &Fields<'_>, problems: &mut Problems) -> u32 {
    fields.count(problems, "retries", RETRIES, 0)
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
        let paths = "a list of paths, at least one";
        let models = "a list of models, at least one";
        let headers = |item: &Item<'_>, p: &mut Problems| Some(header::read_match(item, p));
        Some(Match {
            paths: fields.list(problems, "paths", paths, path_pattern),
            models: fields.list(problems, "models", models, Pattern::read),
            headers: fields
                .optional(problems, "headers", headers)
                .unwrap_or_default(),
        })
    }
}

fn read_name<'a>(
    item: &Item<'a>,
    names: &mut Vec<&'a str>,
    problems: &mut Problems,
) -> Option<&'a str> {
    let name = check_name(item.any_text(problems, NAME)?, &item.path, problems)?;
    match names.binary_search(&name) {
        Err(at) => names.insert(at, name),
        Ok(_) => {
            let expected = "a name of its own";
            return problems.report(&item.path, "duplicate name", &quoted(name), expected);
        }
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
        _ => return Pattern::read(item, problems),
    };
    problems.report(&item.path, "bad pattern", &quoted(text), expected)
}
