//! What all workers know of failing services, in Envoy's shared data.
//!
//! A worker that starts anew finds what the others know, and what it knew itself.

use super::host;
use super::metrics::CoolingMetrics;
use crate::core::config::Cooldown;
use crate::core::cooldown::{Change, Report, Table, Wall};

/// How often a change is tried while other workers change the table as well. Each time, one of them
/// has come through.
const TRIES: usize = 8;

/// The services that are skipped for a time, for one plugin on one worker.
#[derive(Debug)]
pub struct Cooling {
    rules: Cooldown,
    key: String,
    metrics: CoolingMetrics,
}

impl Cooling {
    /// For the services with these names. Only for a root: it asks for the name of the plugin.
    ///
    /// Shared data belongs to a `vm_id`, so that two plugins of one VM need a name each: their services
    /// may have the same names.
    #[must_use]
    pub fn new(rules: Cooldown, services: Vec<String>) -> Self {
        let plugin = host::property(&["plugin_name"]).unwrap_or_default();
        Self {
            rules,
            key: format!("ai_fallback.cooldown.{}", String::from_utf8_lossy(&plugin)),
            metrics: CoolingMetrics::new(services),
        }
    }

    /// The services that are not known to be healthy. One host call.
    #[must_use]
    pub fn read(&self) -> Table {
        Table::decode(&host::shared_data(&self.key).0)
    }

    /// Asks for leave to use a service that is troubled, but not skipped any more. False: another request
    /// probes it.
    #[must_use]
    pub fn begin_probe(&self, service: &str) -> bool {
        let mut may_use = false;
        let table = self.change(&mut |table, now| {
            may_use = table.begin_probe(service, now, &self.rules);
        });
        may_use && table.is_some()
    }

    /// Lets another request probe a service, since this one has not found out about it.
    pub fn give_back_probe(&self, service: &str) {
        self.change(&mut |table, now| table.give_back_probe(service, now, &self.rules));
    }

    /// Tells all workers how attempts ended. Where too many of them tell something at once, this is lost:
    /// the next attempt will say it again.
    pub fn report(&self, reports: &[Report]) {
        if reports.is_empty() {
            return;
        }
        let mut changes = Vec::new();
        let table = self.change(&mut |table, now| {
            changes.clear();
            for report in reports {
                let change = table.report(report, now, &self.rules);
                changes.extend(change.map(|change| (&report.service, change)));
            }
        });
        if let Some(table) = table.filter(|_| !changes.is_empty()) {
            for (service, change) in changes {
                self.tell(service, change);
            }
            let now = host::wall_now();
            self.metrics
                .show(&|service| table.cooling_until(service, now).is_some());
        }
    }

    /// Sets the gauges to what all workers know by now. Returns whether a service is skipped: then a
    /// gauge has to be taken back later, also where there is no traffic any more.
    pub fn refresh(&self) -> bool {
        let (table, now) = (self.read(), host::wall_now());
        self.metrics
            .show(&|service| table.cooling_until(service, now).is_some())
    }

    fn tell(&self, service: &str, change: Change) {
        match change {
            Change::Cooling(time) => {
                self.metrics.cooldown(service);
                log::warn!(
                    "event=cooling service={service} for_ms={}",
                    time.as_millis()
                );
            }
            Change::Healthy => log::info!("event=healthy service={service}"),
        }
    }

    /// Changes the table, and writes it where it is another one then. `None` where other workers were
    /// faster each time.
    fn change(&self, change: &mut dyn FnMut(&mut Table, Wall)) -> Option<Table> {
        (0..TRIES).find_map(|_| {
            let (before, version) = host::shared_data(&self.key);
            let mut table = Table::decode(&before);
            // Not earlier: the time of another worker's write must not lie ahead of this one.
            change(&mut table, host::wall_now());
            let after = table.encode();
            let done = after == before || host::set_shared_data(&self.key, &after, version);
            done.then_some(table)
        })
    }
}
