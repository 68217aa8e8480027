//! What the attempt filters of one worker share, and what they say of a wrong configuration of Envoy.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hashbrown::{HashMap, HashSet};

use super::attempt_filter::Attempt;
use super::deadlines::Timer;
use super::host;
use super::lines::Lines;
use super::metrics::Metrics;
use super::router;
use crate::core::config::Config;
use crate::core::plan::Step;

/// What the attempt filters of one worker share.
pub struct Attempts {
    /// The checked configuration.
    pub config: Config,
    /// The metrics.
    pub metrics: Metrics,
    /// The log lines of requests.
    pub lines: Lines,
    /// What attempts wait for.
    pub timer: Timer,
    /// Those that wait for something.
    pub waiting: RefCell<HashMap<u32, Rc<RefCell<Attempt>>>>,
    /// Envoy has called back an attempt from within one of its own host calls.
    pub interrupted: Cell<bool>,
    warned: Cell<bool>,
    /// Primaries that were in their cluster.
    checked: RefCell<HashSet<String>>,
    /// Clusters where a request came without a plan, and the second in which that was last told.
    seen: RefCell<HashMap<String, u64>>,
}

impl Attempts {
    /// For attempts at the services of `config`.
    #[must_use]
    pub fn new(config: Config, metrics: Metrics) -> Self {
        Self {
            config,
            metrics,
            lines: Lines::default(),
            timer: Timer::default(),
            waiting: RefCell::default(),
            interrupted: Cell::new(false),
            warned: Cell::new(false),
            checked: RefCell::default(),
            seen: RefCell::default(),
        }
    }

    /// An attempt waits for something.
    pub fn wait_for(&self, id: u32, attempt: &Rc<RefCell<Attempt>>) {
        self.waiting.borrow_mut().insert(id, Rc::clone(attempt));
    }

    /// Tells every attempt whose time has come.
    pub fn on_tick(&self) {
        let now = host::now();
        while let Some(id) = self.timer.pop(now) {
            let attempt = self.waiting.borrow().get(&id).map(Rc::clone);
            if let Some(attempt) = attempt.filter(|_| host::enter(id)) {
                attempt.borrow_mut().on_due(now);
            }
        }
        self.timer.after_tick(now, false);
    }

    /// Whether Envoy sent an attempt where the plan wants it. Tells once what is wrong if not: it is
    /// the same for every request.
    #[must_use]
    pub fn is_in_its_cluster(&self, step: &Step) -> bool {
        let Some(service) = &step.service else {
            return true;
        };
        if router::chosen_cluster() == service.cluster {
            return true;
        }
        if !self.warned.replace(true) {
            log::error!(
                "event=wrong_cluster service={} cluster={} sent_to={}: serving by callout; add the cluster to the \
                 route's matcher (exact_match_map) and set refresh_cluster_on_retry in its retry policy",
                service.name,
                service.cluster,
                router::chosen_cluster()
            );
        }
        false
    }

    /// The same for a primary: asked until it was right once, since it costs a host call.
    #[must_use]
    pub fn was_in_its_cluster(&self, primary: &Step) -> bool {
        let Some(service) = &primary.service else {
            return true;
        };
        let mut checked = self.checked.borrow_mut();
        if !checked.contains(&service.name) && self.is_in_its_cluster(primary) {
            checked.insert(service.name.clone());
        }
        checked.contains(&service.name)
    }

    /// Tells once that the plan is none that this filter could follow.
    pub fn on_unknown_plan(&self) {
        if !self.warned.replace(true) {
            log::error!(
                "event=other_configuration cluster={}: serving by callout; give ai_fallback_attempt the plugin \
                 configuration that ai_fallback has",
                router::chosen_cluster()
            );
        }
    }

    /// A request came without a plan. The request filter makes none for a cluster where it has missed this filter: it is
    /// told that there is one now.
    pub fn on_no_plan(&self) {
        let cluster = router::chosen_cluster();
        let second = host::now().as_secs();
        let name = self.config.name_in_cluster(&cluster).to_owned();
        if self.seen.borrow_mut().insert(cluster, second) != Some(second) {
            self.metrics.attempt_filter(&name);
        }
    }
}
