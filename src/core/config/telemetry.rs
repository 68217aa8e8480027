//! `telemetry`: what the filter records of requests only where it is asked to.

use super::reader::{Item, Problems};

const FIELDS: &[&str] = &["access_log", "token_usage"];

/// What the filter records of requests only where it is asked to. Each costs every request some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// What happened is written into filter state, for access logs and traces.
    pub access_log: bool,
    /// The tokens that an answer says it took are read from it.
    pub token_usage: bool,
}

impl Telemetry {
    /// Whether anything of it is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.access_log || self.token_usage
    }

    pub(super) fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        let expected = "an object with the fields `access_log` and `token_usage`";
        let fields = item.fields(problems, expected, FIELDS)?;
        Some(Telemetry {
            access_log: fields.boolean(problems, "access_log", false),
            token_usage: fields.boolean(problems, "token_usage", false),
        })
    }
}
