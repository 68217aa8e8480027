//! Makes the plan of a request: from the configuration, from the models that the request names, and from what
//! its caller may use.

use std::rc::Rc;

use super::{Health, Plan, Step};
use crate::core::config::{Config, Deliver, ModelApi, ModelChoice, Policy, Service, Target};
use crate::core::provider_error::ErrorKind;
use crate::core::wish::Wish;

/// What a request asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// `model` of its body.
    pub model: Option<&'a str>,
    /// `models` of its body. Empty where there are none, or they are not to be used.
    pub models: &'a [String],
    /// It wants a stream.
    pub stream: bool,
    /// What its headers ask for.
    pub wish: Wish,
}

/// What the caller may not use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// An entry of `models`.
    Entry(String),
    /// The model of the request.
    Model(String),
    /// The request names no model, and the caller may use only some.
    NoModel,
    /// The service that the request goes to.
    Service(String),
}

impl Plan {
    /// The plan for a request to `api`. `policy` is what its caller may use; `None`: everything.
    ///
    /// # Errors
    /// What the request names, or its primary, where the caller may not use it. A configured fallback is left
    /// out instead.
    pub fn new(
        config: &Config,
        api: &Rc<ModelApi>,
        request: &Request<'_>,
        policy: Option<&Policy>,
    ) -> Result<Self, Denied> {
        let wish = request.wish;
        let mut builder = Builder {
            config,
            api,
            policy,
            steps: Vec::new(),
        };
        let (first, others) = match (request.model, request.models.split_first()) {
            (None, Some((first, others))) => (Some(first), others),
            _ => (None, request.models),
        };
        let requested = match first {
            Some(entry) => Some(builder.entry(entry)?),
            None => builder.primary(request.model)?,
        };
        let rules = api.fallback.as_ref();
        match rules.filter(|_| !wish.off) {
            Some(rules) => {
                for entry in others {
                    builder.entry(entry)?;
                }
                let client = rules.client_models.filter(|_| !request.models.is_empty());
                if client.is_none_or(|client| client.then_configured) {
                    builder.targets(&rules.targets, requested.as_ref(), None);
                }
                for (kind, targets) in &rules.error_targets {
                    builder.targets(targets, requested.as_ref(), Some(*kind));
                }
            }
            // Neither services that know the same first model, nor another try at the same.
            None => {
                builder.steps.truncate(1);
                builder.steps.iter_mut().for_each(|step| step.retries = 0);
            }
        }
        let deliver = wish.deliver.or(rules.map(|rules| rules.deliver));
        let total_timeout = rules.and_then(|rules| rules.total_timeout);
        Ok(Self {
            steps: builder.steps,
            api: Rc::clone(api),
            requested: request.model.map(Into::into),
            stream: request.stream,
            off: wish.off,
            deliver: deliver.unwrap_or(Deliver::FirstPacket),
            total_timeout: total_timeout.into_iter().chain(wish.timeout).min(),
            uses_client_models: !request.models.is_empty(),
        })
    }
}

struct Builder<'a> {
    config: &'a Config,
    api: &'a ModelApi,
    policy: Option<&'a Policy>,
    steps: Vec<Step>,
}

impl<'a> Builder<'a> {
    /// Adds the configured primary. Returns the model that is passed through.
    fn primary(&mut self, requested: Option<&str>) -> Result<Option<Rc<str>>, Denied> {
        let requested: Option<Rc<str>> = requested.map(Into::into);
        let primary = &self.api.primary;
        let service = primary.service.as_ref();
        let asked = asked(&primary.model, requested.as_ref());
        if self.add(service, asked, &primary.model, primary.retries, None) {
            return Ok(requested);
        }
        let name = service.map_or("primary", |service| &service.name);
        let may_use_service = self.policy.is_none_or(|policy| policy.allows_service(name));
        Err(match asked {
            _ if !may_use_service => Denied::Service(name.to_owned()),
            Some(model) => Denied::Model(model.to_string()),
            None => Denied::NoModel,
        })
    }

    /// Adds what an entry of `models` stands for. Returns its model.
    fn entry(&mut self, entry: &str) -> Result<Rc<str>, Denied> {
        let (service, model) = split_entry(self.config, entry);
        let model: Rc<str> = model.into();
        let mut services: Vec<_> = match service {
            Some(service) => vec![service],
            None => self.services_that_know(&model),
        };
        let primary = self.api.primary.service.as_ref();
        if services.is_empty() {
            services.extend(primary);
        }
        let retries = match self.steps.is_empty() {
            true => self.api.primary.retries,
            false => 0,
        };
        let choice = ModelChoice::PassThrough;
        let mut is_allowed = false;
        for service in &services {
            is_allowed |= self.add(Some(service), Some(&model), &choice, retries, None);
        }
        if services.is_empty() {
            // Nobody but the route knows where that is, and it leads there once.
            is_allowed = match self.steps.is_empty() {
                true => self.add(None, Some(&model), &choice, retries, None),
                false => self.allows(None, Some(&model), Some(&model)),
            };
        }
        match is_allowed {
            true => Ok(model),
            false => Err(Denied::Entry(entry.to_owned())),
        }
    }

    /// The services with a name of their own for this model: first those of the Model API, in their order.
    fn services_that_know(&self, model: &str) -> Vec<&'a Rc<Service>> {
        let targets = self.api.fallback.iter().flat_map(|rules| &rules.targets);
        let own = self
            .api
            .primary
            .service
            .iter()
            .chain(targets.map(|target| &target.service));
        let mut known: Vec<&Rc<Service>> = Vec::new();
        for service in own.chain(&self.config.services) {
            let is_new = known.iter().all(|other| other.name != service.name);
            if is_new && service.model_name(model).is_some() {
                known.push(service);
            }
        }
        known
    }

    fn targets(
        &mut self,
        targets: &[Target],
        requested: Option<&Rc<str>>,
        after: Option<ErrorKind>,
    ) {
        for target in targets {
            let asked = asked(&target.model, requested);
            self.add(
                Some(&target.service),
                asked,
                &target.model,
                target.retries,
                after,
            );
        }
    }

    /// Adds an attempt. False where the caller may not make it.
    fn add(
        &mut self,
        service: Option<&Rc<Service>>,
        asked: Option<&Rc<str>>,
        choice: &ModelChoice,
        retries: u32,
        after: Option<ErrorKind>,
    ) -> bool {
        let (own_name, is_configured) = match choice {
            ModelChoice::Named(_) => (None, true),
            ModelChoice::PassThrough => {
                let known = service.zip(asked);
                let own = known.and_then(|(service, asked)| service.model_name(asked));
                (own, own.is_some())
            }
        };
        let sent = own_name.or(asked);
        if !self.allows(service, asked, sent) {
            return false;
        }
        let step = Step {
            service: service.cloned(),
            model: sent.cloned(),
            alias: asked
                .filter(|_| is_configured && self.config.telemetry.token_usage)
                .cloned(),
            // What the route leads to cannot be called by name.
            retries: service.map_or(0, |_| retries),
            after,
            health: Health::Good,
        };
        let is_same = |other: &Step| other.after == after && other.is_same(&step);
        if self.steps.len() < Plan::MAX_STEPS && !self.steps.iter().any(is_same) {
            self.steps.push(step);
        }
        true
    }

    fn allows(
        &self,
        service: Option<&Rc<Service>>,
        asked: Option<&Rc<str>>,
        sent: Option<&Rc<str>>,
    ) -> bool {
        let name = service.map_or("primary", |service| &service.name);
        self.policy.is_none_or(|policy| {
            policy.allows_service(name)
                && policy.allows_model(asked.map(|model| &**model), sent.map(|model| &**model))
        })
    }
}

/// `service:model` and `service/model`, where that is a service; else all of it is a model.
pub fn split_entry<'a, 'e>(
    config: &'a Config,
    entry: &'e str,
) -> (Option<&'a Rc<Service>>, &'e str) {
    let parts = entry.split_once([':', '/']);
    let named = parts.filter(|(_, model)| !model.is_empty());
    let found = named.and_then(|(name, model)| Some((config.service(name)?, model)));
    found.map_or((None, entry), |(service, model)| (Some(service), model))
}

/// The model that is asked for, by the name that the request or the configuration has for it.
fn asked<'a>(choice: &'a ModelChoice, requested: Option<&'a Rc<str>>) -> Option<&'a Rc<str>> {
    match choice {
        ModelChoice::Named(name) => Some(name),
        ModelChoice::PassThrough => requested,
    }
}
