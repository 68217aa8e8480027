//! Which services are skipped for a time, since they failed several times in a row or asked for it.
//!
//! ```text
//!          fails          enough in a row          its time is over
//! healthy ───────► failing ───────────► cooling ─────────────────────► probing
//!                    or Retry-After, at once  ▲                           │
//!                                             └────────── it fails ───────┘
//! ```
//!
//! An answer of the service makes it healthy, from any state. A state that is long over is forgotten.
//!
//! All workers share one [`Table`], as bytes. A healthy service is not in it.

use std::time::Duration;

use super::bytes::{put_u64, take_u64};
use super::config::Cooldown;

/// Time since the Unix epoch: the one clock that all workers share. It may jump.
pub type Wall = Duration;

/// How far a worker's clock may be behind the one that wrote an entry. A clock that is put right goes
/// back by a little, and a worker may read its clock just before another one writes.
const SLACK: Duration = Duration::from_secs(1);

/// What an attempt says about the health of its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The name of the service.
    pub service: String,
    /// What the attempt says.
    pub sign: Sign,
}

/// How an attempt ended, as far as it concerns the requests that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// The service answered.
    Alive,
    /// It failed in a way that another request would meet too.
    Failing,
    /// It asked to be left alone for this long. Zero is a failure and no more.
    RetryAfter(Duration),
}

/// What a report has changed for all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The service began to cool, for this long.
    Cooling(Duration),
    /// A service that was skipped is used again.
    Healthy,
}

/// The services that are not known to be healthy, by name. It is empty most of the time, and never
/// longer than the list of services that are reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table(Vec<(String, Trouble)>);

/// What is known of a service that is not healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trouble {
    state: State,
    /// When it got into this state.
    from: Wall,
    /// When it may be used again; the same as `from` where it may be used all the time.
    until: Wall,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// This many failures in a row: fewer than make it cool.
    Failing(u32),
    /// No request uses it.
    Cooling,
    /// One request uses it.
    Probing,
}

impl Table {
    /// Reads a table. Bytes that are none are an empty one.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Self {
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            let Some(entry) = take_entry(&mut bytes) else {
                return Self::default();
            };
            entries.push(entry);
        }
        Self(entries)
    }

    /// The table as bytes. An empty one has none.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (service, trouble) in &self.0 {
            put_u64(&mut out, service.len() as u64);
            out.extend_from_slice(service.as_bytes());
            put_u64(&mut out, trouble.state.number());
            put_u64(&mut out, nanos(trouble.from));
            put_u64(&mut out, nanos(trouble.until));
        }
        out
    }

    /// Until when this service is skipped: it cools, or another request probes it. `None`: it may be
    /// used, after [`Table::begin_probe`] where it is troubled.
    ///
    /// A time more than a second before the cooldown is not in it: a clock that is set back makes none
    /// long.
    #[must_use]
    pub fn cooling_until(&self, service: &str, now: Wall) -> Option<Wall> {
        let trouble = self.get(service).filter(|trouble| trouble.holds(now))?;
        Some(trouble.until)
    }

    /// Whether the service is not known to be healthy. A request that finds this when it begins reports
    /// how its attempt ends, good or bad; any other one reports failures only.
    #[must_use]
    pub fn is_troubled(&self, service: &str) -> bool {
        self.get(service).is_some()
    }

    /// A request wants to use a service. True: it may. Where the service was skipped until now, this
    /// request is its probe: the others skip it until the probe's report, or for `rules.time`.
    #[must_use]
    pub fn begin_probe(&mut self, service: &str, now: Wall, rules: &Cooldown) -> bool {
        let before = self.get(service);
        match before.filter(|trouble| trouble.is_remembered(now, rules)) {
            None => self.replace(service, before, None, now, rules),
            Some(trouble) if trouble.holds(now) => return false,
            Some(trouble) if trouble.is_failing() => {}
            Some(_) => {
                let probing = Trouble::lasting(State::Probing, now, rules.time);
                self.replace(service, before, Some(probing), now, rules);
            }
        }
        true
    }

    /// A request that was to find out about the service has ended without having done so: the next one may.
    pub fn give_back_probe(&mut self, service: &str, now: Wall, rules: &Cooldown) {
        let before = self.get(service);
        if before.is_some_and(|trouble| trouble.state == State::Probing) {
            let over = Trouble::lasting(State::Cooling, now, Duration::ZERO);
            self.replace(service, before, Some(over), now, rules);
        }
    }

    /// Takes in how an attempt ended. Returns what that changed for other requests.
    ///
    /// `Alive` ends a cooldown too. Only a request that found the service troubled when it began reports
    /// it: it is the probe, or one that had no better choice, and the service does answer.
    pub fn report(&mut self, report: &Report, now: Wall, rules: &Cooldown) -> Option<Change> {
        let before = self.get(&report.service);
        let known = before.filter(|trouble| trouble.is_remembered(now, rules));
        let after = Trouble::after(known, report.sign, now, rules);
        self.replace(&report.service, before, after, now, rules);
        let cooled = known.is_some_and(|trouble| trouble.cools(now));
        match after {
            Some(trouble) if trouble.cools(now) && !cooled => {
                Some(Change::Cooling(trouble.until.saturating_sub(now)))
            }
            None if before.is_some_and(|trouble| !trouble.is_failing()) => Some(Change::Healthy),
            _ => None,
        }
    }

    fn get(&self, service: &str) -> Option<Trouble> {
        let (_, trouble) = self.0.iter().find(|(name, _)| name == service)?;
        Some(*trouble)
    }

    /// Changes one entry, and drops those of services that nobody has asked for in a long time.
    fn replace(
        &mut self,
        service: &str,
        before: Option<Trouble>,
        after: Option<Trouble>,
        now: Wall,
        rules: &Cooldown,
    ) {
        if before == after {
            return;
        }
        self.0
            .retain(|(name, trouble)| name != service && trouble.is_remembered(now, rules));
        if let Some(trouble) = after {
            self.0.push((service.to_owned(), trouble));
        }
    }
}

impl Trouble {
    fn lasting(state: State, now: Wall, time: Duration) -> Self {
        Self {
            state,
            from: now,
            until: now.saturating_add(time),
        }
    }

    /// What is known after a sign; `None`: the service is healthy.
    fn after(known: Option<Self>, sign: Sign, now: Wall, rules: &Cooldown) -> Option<Self> {
        let asked = match sign {
            Sign::Alive => return None,
            Sign::Failing => Duration::ZERO,
            Sign::RetryAfter(time) => time.min(rules.max_retry_after),
        };
        let cooling = |time| Some(Self::lasting(State::Cooling, now, time));
        match known {
            // Nothing new, or less than what is known: the late answer of a request that began before.
            Some(trouble) if trouble.cools(now) && trouble.until >= now.saturating_add(asked) => {
                known
            }
            _ if !asked.is_zero() => cooling(asked),
            _ => match State::after_failure(known.map(|trouble| trouble.state), rules) {
                State::Cooling => cooling(rules.time),
                state => Some(Self::lasting(state, now, Duration::ZERO)),
            },
        }
    }

    /// Whether other requests skip the service.
    fn holds(&self, now: Wall) -> bool {
        !self.is_failing() && self.has_begun(now) && now < self.until
    }

    fn is_failing(&self) -> bool {
        matches!(self.state, State::Failing(_))
    }

    fn cools(&self, now: Wall) -> bool {
        self.state == State::Cooling && self.holds(now)
    }

    /// Whether it still counts, also where its time is over.
    fn is_remembered(&self, now: Wall, rules: &Cooldown) -> bool {
        self.has_begun(now) && now < self.until.saturating_add(rules.time)
    }

    /// False after a clock was set back. The entry could stay for any time then.
    fn has_begun(&self, now: Wall) -> bool {
        self.from <= now.saturating_add(SLACK)
    }
}

impl State {
    fn after_failure(state: Option<Self>, rules: &Cooldown) -> Self {
        let failures = match state {
            None => 1,
            Some(Self::Failing(failures)) => failures.saturating_add(1),
            // Used again for the first time, it has failed again.
            Some(Self::Cooling | Self::Probing) => return Self::Cooling,
        };
        match failures >= rules.failures {
            true => Self::Cooling,
            false => Self::Failing(failures),
        }
    }

    /// As a number: of failures, which is never 0, or one that is larger than any.
    fn number(self) -> u64 {
        match self {
            Self::Failing(failures) => u64::from(failures),
            Self::Cooling => COOLING,
            Self::Probing => PROBING,
        }
    }

    fn from_number(number: u64) -> Option<Self> {
        match number {
            COOLING => Some(Self::Cooling),
            PROBING => Some(Self::Probing),
            failures => Some(Self::Failing(u32::try_from(failures).ok()?)),
        }
    }
}

const COOLING: u64 = u64::MAX;
const PROBING: u64 = u64::MAX - 1;

fn nanos(time: Wall) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn take_entry(bytes: &mut &[u8]) -> Option<(String, Trouble)> {
    let length = usize::try_from(take_u64(bytes)?).ok()?;
    let (name, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    let trouble = Trouble {
        state: State::from_number(take_u64(bytes)?)?,
        from: Duration::from_nanos(take_u64(bytes)?),
        until: Duration::from_nanos(take_u64(bytes)?),
    };
    Some((String::from_utf8(name.to_vec()).ok()?, trouble))
}
