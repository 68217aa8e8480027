//! A plan as bytes: attempt filters have the same configuration, but not the request.

use std::rc::Rc;
use std::time::Duration;

use super::{Health, Plan, Step};
use crate::core::bytes::{put, put_number, take_number, take_text};
use crate::core::config::{Config, Deliver};
use crate::core::provider_error::ErrorKind;

const STREAM: usize = 1;
const COMPLETE: usize = 2;
const CLIENT_MODELS: usize = 4;
const OFF: usize = 8;
const REQUESTED: usize = 16;

const HAS_SERVICE: usize = 1;
const HAS_MODEL: usize = 2;
const SAME_MODEL: usize = 16;
/// The kind of error stands above these bits, from 1 on.
const HEALTH: [(usize, Health); 3] = [
    (0, Health::Good),
    (4, Health::Troubled),
    (8, Health::Cooling),
];
const KIND: usize = 32;

impl Plan {
    /// Adds the plan.
    pub fn put(&self, out: &mut Vec<u8>) {
        let flag = |flag, is: bool| if is { flag } else { 0 };
        let flags = flag(STREAM, self.stream)
            | flag(COMPLETE, self.deliver == Deliver::Complete)
            | flag(CLIENT_MODELS, self.uses_client_models)
            | flag(OFF, self.off)
            | flag(REQUESTED, self.requested.is_some());
        let total = self.total_timeout.unwrap_or_default().as_millis();
        put_number(out, self.api.index);
        put(out, self.api.name.as_bytes());
        put_number(out, flags);
        put_number(out, usize::try_from(total).unwrap_or(usize::MAX));
        if let Some(requested) = &self.requested {
            put(out, requested.as_bytes());
        }
        put_number(out, self.steps.len());
        let mut before = self.requested.as_ref();
        for step in &self.steps {
            step.put(before, out);
            before = step.model.as_ref();
        }
    }

    /// Takes a plan. `None` where the bytes are none, or `config` is not the one that it was made with.
    #[must_use]
    pub fn take(config: &Config, bytes: &mut &[u8]) -> Option<Self> {
        let api = config.model_apis.get(take_number(bytes)?)?;
        let name = take_text(bytes)?;
        let flags = take_number(bytes)?;
        let total = Duration::from_millis(take_number(bytes)? as u64);
        let requested: Option<Rc<str>> = match flags & REQUESTED {
            0 => None,
            _ => Some(take_text(bytes)?.into()),
        };
        let count = take_number(bytes)?;
        let mut steps: Vec<Step> = Vec::new();
        for _ in 0..count {
            let before = match steps.last() {
                Some(step) => step.model.as_ref(),
                None => requested.as_ref(),
            };
            steps.push(Step::take(config, before, bytes)?);
        }
        (api.name == name).then_some(Self {
            api: Rc::clone(api),
            requested,
            steps,
            stream: flags & STREAM != 0,
            off: flags & OFF != 0,
            deliver: match flags & COMPLETE {
                0 => Deliver::FirstPacket,
                _ => Deliver::Complete,
            },
            total_timeout: Some(total).filter(|total| !total.is_zero()),
            uses_client_models: flags & CLIENT_MODELS != 0,
        })
    }
}

impl Step {
    /// `before` is the model of the step before: it is often the same, and may be long.
    fn put(&self, before: Option<&Rc<str>>, out: &mut Vec<u8>) {
        let model = self.model.as_ref().map_or(0, |model| match before {
            Some(before) if before == model => SAME_MODEL,
            _ => HAS_MODEL,
        });
        let kind = |kind| {
            ErrorKind::NAMES
                .iter()
                .position(|(_, other)| *other == kind)
        };
        let health = HEALTH.iter().find(|(_, health)| *health == self.health);
        let flags = self.service.as_ref().map_or(0, |_| HAS_SERVICE)
            | model
            | health.map_or(0, |(bits, _)| *bits)
            | self
                .after
                .and_then(kind)
                .map_or(0, |kind| (kind + 1) * KIND);
        put_number(out, flags);
        put_number(out, self.retries as usize);
        if let Some(service) = &self.service {
            put(out, service.name.as_bytes());
        }
        if let Some(model) = self.model.as_ref().filter(|_| model == HAS_MODEL) {
            put(out, model.as_bytes());
        }
    }

    fn take(config: &Config, before: Option<&Rc<str>>, bytes: &mut &[u8]) -> Option<Self> {
        let flags = take_number(bytes)?;
        let retries = u32::try_from(take_number(bytes)?).ok()?;
        let health = HEALTH
            .iter()
            .find(|(bits, _)| (flags % KIND) & !(HAS_SERVICE | HAS_MODEL | SAME_MODEL) == *bits);
        let kind = (flags / KIND).checked_sub(1);
        let service = match flags & HAS_SERVICE {
            0 => None,
            _ => Some(Rc::clone(config.service(take_text(bytes)?)?)),
        };
        let model = match flags & (HAS_MODEL | SAME_MODEL) {
            0 => None,
            SAME_MODEL => Some(Rc::clone(before?)),
            _ => Some(take_text(bytes)?.into()),
        };
        Some(Self {
            service,
            model,
            // For the request filter alone, which counts tokens.
            alias: None,
            retries,
            after: kind
                .and_then(|kind| ErrorKind::NAMES.get(kind))
                .map(|(_, kind)| *kind),
            health: health?.1,
        })
    }
}
