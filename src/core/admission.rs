//! From a request to its plan: which Model API it belongs to, what it asks for, and whether its caller may.

use super::config::{Candidates, Config, Fallback, Policy};
use super::fit::{self, Header};
use super::plan::{Denied, Plan, Request, split_entry};
use super::reply::Problem;
use super::request::RequestBody;
use super::wish::Wish;

/// The head of a request to a Model API.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The Model APIs that it may belong to.
    pub candidates: &'a Candidates,
    /// All of its headers.
    pub headers: &'a [Header],
}

impl<'a> Head<'a> {
    /// How often the request came through, with this time; `None` where that is not counted.
    ///
    /// # Errors
    /// It came through too often.
    pub fn hops(self) -> Result<Option<u32>, Problem> {
        let Some(max) = self.config.max_hops else {
            return Ok(None);
        };
        match fit::hops(self.headers) {
            hops if hops >= max => Err(Problem::Loop),
            hops => Ok(Some(hops + 1)),
        }
    }

    /// Whether a request may go on to the service of this name though its body, and so its model, is not read.
    /// `may_have_model`: it has a body, or becomes a connection that may ask for any model.
    ///
    /// # Errors
    /// Its caller may not use the service, or not every model.
    pub fn admit_unread(self, service: &str, may_have_model: bool) -> Result<(), Problem> {
        match self.policy() {
            Some(policy) if may_have_model && policy.restricts_models() => Err(Problem::Unreadable),
            Some(policy) if !policy.allows_service(service) => {
                Err(Problem::Denied(Denied::Service(service.to_owned())))
            }
            _ => Ok(()),
        }
    }

    /// The plan of a request with this body; `None` where it belongs to no Model API.
    ///
    /// # Errors
    /// What it asks for makes no sense, or its caller may not have it.
    pub fn plan(self, read: &RequestBody, body: &[u8]) -> Result<Option<Plan>, Problem> {
        let named = read.model.as_ref().map(|model| model.name.as_str());
        // Whether `models` counts is up to the Model API, which its first entry may decide on.
        let by_list = || {
            let first = read.first_of_models(body)?;
            let (_, model) = split_entry(self.config, &first);
            let api = self.candidates.first_for(Some(model))?;
            api.fallback.as_ref()?.client_models.map(|_| api)
        };
        let by_list = named.map_or_else(by_list, |_| None);
        let Some(api) = by_list.or_else(|| self.candidates.first_for(named)) else {
            return Ok(None);
        };
        let rules = api.fallback.as_ref();
        let policy = self.policy();
        let models = match rules.and_then(|rules| rules.client_models) {
            Some(client) => read.models(body, client.max).map_err(Problem::Body)?,
            None => None,
        };
        if let Some(policy) = policy.filter(|policy| policy.restricts_models()) {
            check_what_others_read(policy, read, body, models.is_some())?;
        }
        let request = Request {
            model: named,
            models: &models.unwrap_or_default(),
            stream: read.stream,
            wish: self.wish(rules)?,
        };
        Plan::new(self.config, api, &request, policy)
            .map(Some)
            .map_err(Problem::Denied)
    }

    fn wish(self, rules: Option<&Fallback>) -> Result<Wish, Problem> {
        let allowed = rules.map(|rules| rules.client_controls).unwrap_or_default();
        Wish::read(allowed, self.headers).map_err(Problem::Header)
    }

    /// What the caller may use. One that is named twice is not known.
    fn policy(self) -> Option<&'a Policy> {
        let access = self.config.access.as_ref()?;
        let mut named = self
            .headers
            .iter()
            .filter(|(name, _)| *name == access.identity_header);
        let identity = named.next().filter(|_| named.next().is_none());
        Some(access.policy(identity.map(|(_, value)| value.as_slice())))
    }
}

/// The most entries of a `models` that is not ours.
const MAX_UNUSED: usize = 100;

/// A service may read more than the filter does: a member `Model`, or a `models` that the filter leaves alone.
fn check_what_others_read(
    policy: &Policy,
    read: &RequestBody,
    body: &[u8],
    uses_models: bool,
) -> Result<(), Problem> {
    if read.has_odd_model {
        return Err(Problem::Unreadable);
    }
    if uses_models {
        return Ok(());
    }
    let listed = read
        .models(body, MAX_UNUSED)
        .map_err(|_| Problem::Unreadable)?;
    let mut entries = listed.into_iter().flatten();
    match entries.find(|entry| !policy.allows_model(Some(entry), None)) {
        Some(entry) => Err(Problem::Denied(Denied::Entry(entry))),
        None => Ok(()),
    }
}
