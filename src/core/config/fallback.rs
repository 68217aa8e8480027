//! `fallback` of a Model API: who is tried after the primary, when, and for how long.

use std::cmp::Reverse;
use std::time::Duration;

use super::model_api::{ModelChoice, Services, Target};
use super::reader::{Fields, Item, Problems};
use super::status_set::StatusSet;

const FIELDS: &[&str] = &[
    "enabled",
    "services",
    "only_backend_errors",
    "on_status",
    "first_packet_timeout_ms",
    "request_timeout_ms",
    "total_timeout_ms",
];
const TARGET_FIELDS: &[&str] = &["service", "model", "priority"];
const SERVICES: &str = "a list of services, at least one";
/// A day: longer is a mistake in the unit.
const MAX_TIMEOUT_MS: i32 = 86_400_000;

/// What happens after an attempt that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Fallback {
    /// Who is tried, in this order: the higher priority first, and as listed where it is the same.
    /// At least one. A target may be in the list twice, or be the primary: it is up to the request
    /// to skip what was tried.
    pub targets: Vec<Target>,
    /// Whether an answer of the gateway itself is never a failure.
    pub only_backend_errors: bool,
    /// Which statuses are failures.
    pub on_status: StatusSet,
    /// How long a streaming request waits for the first packet of an answer; `None` for no limit.
    pub first_packet_timeout: Option<Duration>,
    /// How long a request waits for an answer (streaming: its first packet); `None` for no limit.
    pub request_timeout: Option<Duration>,
    /// How long all attempts may take together; `None` for no limit.
    pub total_timeout: Option<Duration>,
}

impl Fallback {
    /// The inner `None` is a fallback that is not enabled: all of it is checked, but it needs no
    /// services.
    pub(super) fn read(
        item: &Item<'_>,
        services: &Services,
        problems: &mut Problems,
    ) -> Option<Option<Self>> {
        let fields = item.fields(problems, "an object with the field `services`", FIELDS)?;
        let enabled = fields.optional(problems, "enabled", true, Item::boolean);
        let read_targets =
            |item: &Item<'_>, problems: &mut Problems| targets(item, services, problems);
        let targets = match enabled {
            Some(false) => fields.optional(problems, "services", Vec::new(), read_targets),
            _ => fields.required(problems, "services", SERVICES, read_targets),
        };
        let only_backend_errors =
            fields.optional(problems, "only_backend_errors", false, Item::boolean);
        let on_status = fields.optional(problems, "on_status", StatusSet::ALL, StatusSet::read);
        let first_packet_timeout = timeout(&fields, problems, "first_packet_timeout_ms", None);
        let request_timeout = timeout(
            &fields,
            problems,
            "request_timeout_ms",
            Some(Duration::from_secs(60)),
        );
        let total_timeout = timeout(&fields, problems, "total_timeout_ms", None);
        let fallback = Fallback {
            targets: targets?,
            only_backend_errors: only_backend_errors?,
            on_status: on_status?,
            first_packet_timeout: first_packet_timeout?,
            request_timeout: request_timeout?,
            total_timeout: total_timeout?,
        };
        Some(enabled?.then_some(fallback))
    }
}

fn targets(item: &Item<'_>, services: &Services, problems: &mut Problems) -> Option<Vec<Target>> {
    let mut targets = item.list(problems, SERVICES, |item, p| target(item, services, p))?;
    targets.sort_by_key(|(priority, _)| Reverse(*priority));
    Some(targets.into_iter().map(|(_, target)| target).collect())
}

/// A target and its priority.
fn target(item: &Item<'_>, services: &Services, problems: &mut Problems) -> Option<(i32, Target)> {
    let fields = item.fields(
        problems,
        "an object with the field `service`",
        TARGET_FIELDS,
    )?;
    let service = fields.required(problems, "service", "the name of a service", |item, p| {
        services.find(item, p)
    });
    let model = ModelChoice::read(&fields, problems);
    let priority = fields.optional(problems, "priority", 0, |item, p| {
        item.integer(p, i32::MIN..=i32::MAX)
    });
    Some((
        priority?,
        Target {
            service: service?,
            model: model?,
        },
    ))
}

/// Milliseconds, 0 for no limit.
fn timeout(
    fields: &Fields<'_>,
    problems: &mut Problems,
    name: &str,
    default: Option<Duration>,
) -> Option<Option<Duration>> {
    fields.optional(problems, name, default, |item, p| {
        let millis = u64::try_from(item.integer(p, 0..=MAX_TIMEOUT_MS)?).ok()?;
        Some((millis > 0).then(|| Duration::from_millis(millis)))
    })
}
