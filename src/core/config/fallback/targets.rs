//! Lists of services to try: `services`, and those of `error_services`.

use crate::core::config::error::{one_of, quoted};
use crate::core::config::model_api::{ModelChoice, Target, read_retries};
use crate::core::config::reader::{Item, Problems};
use crate::core::config::services::Services;
use crate::core::provider_error::ErrorKind;

const FIELDS: &[&str] = &["service", "model", "priority", "retries"];
pub(super) const EXPECTED: &str = "a list of services, at least one";

/// The higher priority first, and as listed where it is the same.
pub(super) fn read(item: &Item<'_>, services: &Services, problems: &mut Problems) -> Vec<Target> {
    let mut targets: Vec<(i32, Target)> = Vec::new();
    for target in item.list(problems, EXPECTED, |item, p| target(item, services, p)) {
        let at = targets.partition_point(|(priority, _)| *priority >= target.0);
        targets.insert(at, target);
    }
    targets.into_iter().map(|(_, target)| target).collect()
}

/// A list for each kind of error, in the order of the names of the kinds.
pub(super) fn read_by_kind(
    item: &Item<'_>,
    services: &Services,
    problems: &mut Problems,
) -> Vec<(ErrorKind, Vec<Target>)> {
    let expected = "an object of lists of services by kind of error, at least one";
    let entries = item.some_entries(problems, expected);
    let lists = entries.iter().filter_map(|(key, item)| {
        let kind = ErrorKind::of_name(key).or_else(|| {
            let names = one_of(&ErrorKind::NAMES.map(|(name, _)| name), '`', key);
            problems.report(&item.path, "unknown kind of error", &quoted(key), &names)
        });
        let targets = read(item, services, problems);
        Some((kind?, targets))
    });
    lists.collect()
}

/// A target and its priority.
fn target(item: &Item<'_>, services: &Services, problems: &mut Problems) -> Option<(i32, Target)> {
    let fields = item.fields(problems, "an object with the field `service`", FIELDS)?;
    let service = fields.required(problems, "service", "the name of a service", |item, p| {
        services.find(item, p)
    });
    let model = ModelChoice::read(&fields, problems);
    let priority = fields.optional(problems, "priority", |item, p| {
        item.integer(p, i32::MIN..=i32::MAX)
    });
    let target = Target {
        model,
        retries: read_retries(&fields, problems),
        service: service?,
    };
    Some((priority.unwrap_or_default(), target))
}
