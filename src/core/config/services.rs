//! `services`: all model services by name, and where a name of one stands.

use std::rc::Rc;

use super::credentials::CredentialNames;
use super::error::{one_of, quoted};
use super::header::Env;
use super::reader::{Item, Problems};
use super::service::{self, Service};

pub(super) const EXPECTED: &str = "an object of services by name, at least one";

/// The services, sorted by name; `None` for one that could not be read, and no entry at all where
/// `services` could not be. Both are reported already, and a use of such a service is not reported
/// as well.
#[derive(Default)]
pub(super) struct Services(Vec<(String, Option<Rc<Service>>)>);

impl Services {
    /// Every service that was written is in the result, also where it could not be read.
    pub fn read(
        item: &Item<'_>,
        env: Env<'_>,
        credential_names: &Rc<CredentialNames>,
        problems: &mut Problems,
    ) -> Self {
        let entries = item.some_entries(problems, EXPECTED);
        let services = entries.iter().map(|(key, item)| {
            let name = service::check_name(key, &item.path, problems);
            let service = Service::read(name, item, env, credential_names, problems);
            ((*key).to_owned(), service.map(Rc::new))
        });
        Services(services.collect())
    }

    /// The service that is named here.
    pub fn find(&self, item: &Item<'_>, problems: &mut Problems) -> Option<Rc<Service>> {
        let name = item.any_text(problems, "the name of a service")?;
        let found = self.0.binary_search_by(|(own, _)| own.as_str().cmp(name));
        if let Some((_, service)) = found.ok().and_then(|at| self.0.get(at)) {
            return service.clone();
        }
        if self.0.is_empty() {
            return None;
        }
        let names = one_of(&self.names(), '"', name);
        problems.report(&item.path, "unknown service", &quoted(name), &names)
    }

    /// The names, sorted; none where `services` could not be read.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Those that could be read, sorted by name.
    pub fn into_sorted(self) -> Vec<Rc<Service>> {
        self.0
            .into_iter()
            .filter_map(|(_, service)| service)
            .collect()
    }
}
