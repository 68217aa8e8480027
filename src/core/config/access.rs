//! `access`: which services and models a caller may use.

use super::error::{one_of, quoted};
use super::header;
use super::pattern::Pattern;
use super::reader::{Fields, Item, Problems};
use super::services::Services;

const FIELDS: &[&str] = &["identity_header", "default_policy", "policies"];
const DEFAULT_FIELDS: &[&str] = &["allow", "deny"];
const POLICY_FIELDS: &[&str] = &["identities", "allow", "deny"];
const NAMES_FIELDS: &[&str] = &["services", "models"];
const POLICY: &str = "an object with the fields `allow` and `deny`";
const NAMES: &str = "an object with the fields `services` and `models`, at least one of them";
const IDENTITIES: &str = "a list of identities, at least one";
/// What a primary without a named service is called.
const PRIMARY: &str = "primary";

/// Who may use what.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// The request header, in lower case, that says who calls.
    pub identity_header: String,
    /// For those whom no entry of `policies` names, and for callers that are not known.
    pub default_policy: Policy,
    /// The first whose identities fit is taken.
    policies: Vec<(Vec<Pattern>, Policy)>,
}

/// What a caller may use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    allow: Names,
    deny: Names,
}

/// Names of services and models.
#[derive(Debug, Clone, Default, PartialEq)]
struct Names {
    /// `None`: not restricted.
    services: Option<Vec<Pattern>>,
    models: Option<Vec<Pattern>>,
}

impl Access {
    /// The policy for this caller; `None` and no bytes are one that is not known.
    #[must_use]
    pub fn policy(&self, identity: Option<&[u8]>) -> &Policy {
        let identity = identity.filter(|identity| !identity.is_empty());
        let found = identity.and_then(|identity| {
            let mut policies = self.policies.iter();
            policies.find(|(identities, _)| any_matches(identities, identity))
        });
        found.map_or(&self.default_policy, |(_, policy)| policy)
    }

    pub(super) fn read(
        item: &Item<'_>,
        services: &Services,
        problems: &mut Problems,
    ) -> Option<Self> {
        let expected = "an object with the fields `identity_header` and `default_policy`";
        let fields = item.fields(problems, expected, FIELDS)?;
        let expected = "the name of the header that says who calls";
        let identity_header = fields.required(problems, "identity_header", expected, |item, p| {
            header::read_identity(item, expected, p)
        });
        let default_policy = fields.required(problems, "default_policy", POLICY, |item, p| {
            let fields = item.fields(p, POLICY, DEFAULT_FIELDS)?;
            Some(Policy::read(&fields, services, p))
        });
        let expected = "a list of policies, at least one";
        let policies = fields.list(problems, "policies", expected, |item, p| {
            let fields = item.fields(p, POLICY, POLICY_FIELDS)?;
            let identities = fields.required(p, "identities", IDENTITIES, |item, p| {
                Some(item.list(p, IDENTITIES, Pattern::read))
            });
            let policy = Policy::read(&fields, services, p);
            Some((identities?, policy))
        });
        Some(Access {
            identity_header: identity_header?,
            default_policy: default_policy?,
            policies,
        })
    }
}

impl Policy {
    /// Whether a service may be used. A primary without a named service is called `primary`.
    #[must_use]
    pub fn allows_service(&self, name: &str) -> bool {
        let within = |names: &Vec<Pattern>| any_matches(names, name.as_bytes());
        self.allow.services.as_ref().is_none_or(within)
            && !self.deny.services.as_ref().is_some_and(within)
    }

    /// Whether a model may be used: `requested` as the client or the configuration names it, `sent` as the service
    /// knows it. `None` where the request names none: that is not allowed where only some models are.
    #[must_use]
    pub fn allows_model(&self, requested: Option<&str>, sent: Option<&str>) -> bool {
        let within = |names: &Vec<Pattern>| {
            let mut models = [requested, sent].into_iter().flatten();
            models.any(|model| any_matches(names, model.as_bytes()))
        };
        self.allow.models.as_ref().is_none_or(within)
            && !self.deny.models.as_ref().is_some_and(within)
    }

    /// Whether it says anything about models: a request whose model cannot be read must then be refused.
    #[must_use]
    pub fn restricts_models(&self) -> bool {
        self.allow.models.is_some() || self.deny.models.is_some()
    }

    fn read(fields: &Fields<'_>, services: &Services, problems: &mut Problems) -> Self {
        let [allow, deny] = ["allow", "deny"].map(|name| {
            let names = fields.optional(problems, name, |item, p| Names::read(item, services, p));
            names.unwrap_or_default()
        });
        Policy { allow, deny }
    }
}

impl Names {
    /// An object without any list is refused: an empty `allow` looks as if it allowed nothing.
    fn read(item: &Item<'_>, services: &Services, problems: &mut Problems) -> Option<Self> {
        let fields = item.fields(problems, NAMES, NAMES_FIELDS)?;
        if !NAMES_FIELDS.iter().any(|name| fields.has(name)) {
            return problems.report(&item.path, "nothing named", "no list", NAMES);
        }
        Some(Names {
            services: fields.optional(problems, "services", |item, p| {
                let expected = "a list of services, at least one";
                Some(item.list(p, expected, |item, p| service_pattern(item, services, p)))
            }),
            models: fields.optional(problems, "models", |item, p| {
                Some(item.list(p, "a list of models, at least one", Pattern::read))
            }),
        })
    }
}

fn any_matches(patterns: &[Pattern], text: &[u8]) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

/// A name that is no service's would forbid nothing, or allow nothing, without a word.
fn service_pattern(
    item: &Item<'_>,
    services: &Services,
    problems: &mut Problems,
) -> Option<Pattern> {
    let pattern = Pattern::read(item, problems)?;
    let mut names = services.names();
    if names.is_empty() {
        return None;
    }
    if !names.contains(&PRIMARY) {
        names.push(PRIMARY);
    }
    if names.iter().any(|name| pattern.matches(name.as_bytes())) {
        return Some(pattern);
    }
    let problem = match pattern.exact() {
        Some(_) => "unknown service",
        None => "matches no service",
    };
    let text = pattern.text();
    let expected = one_of(&names, '"', text);
    problems.report(&item.path, problem, &quoted(text), &expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config::{Config, Node};

    fn access(fields: &str) -> Access {
        let json = format!(
            r#"{{"services": {{"a": {{"cluster": "a"}}, "b": {{"cluster": "b"}}}},
                "model_apis": [{{"name": "chat"}}],
                "access": {{"identity_header": "X-Team", {fields}}}}}"#
        );
        let node = Node::from_json(json.as_bytes()).unwrap();
        Config::parse(&node, &|_| None).unwrap().access.unwrap()
    }

    fn policy(fields: &str) -> Policy {
        access(&format!(r#""default_policy": {{{fields}}}"#)).default_policy
    }

    #[test]
    fn the_first_policy_with_the_identity_is_taken() {
        let access = access(
            r#""default_policy": {"deny": {"services": ["*"]}}, "policies": [
                {"identities": ["red", "blue-*"], "allow": {"services": ["a"]}},
                {"identities": ["blue-1", "*"], "allow": {"services": ["b"]}}]"#,
        );
        for (identity, services) in [
            (Some(b"red".as_slice()), ["a"].as_slice()),
            (Some(b"blue-1"), &["a"]),
            (Some(b"Red"), &["b"]),
            (Some(b"\xff\0"), &["b"]),
            (Some(b""), &[]),
            (None, &[]),
        ] {
            let policy = access.policy(identity);
            let allowed = ["a", "b", "primary"].map(|name| policy.allows_service(name));
            let expected = ["a", "b", "primary"].map(|name| services.contains(&name));
            assert_eq!(allowed, expected, "{identity:?}");
        }
    }

    #[test]
    fn a_caller_without_a_policy_of_its_own_has_the_default() {
        let access = access(
            r#""default_policy": {"allow": {"services": ["a"]}},
               "policies": [{"identities": ["red"]}]"#,
        );
        assert!(access.policy(Some(b"red")).allows_service("b"));
        assert!(!access.policy(Some(b"blue")).allows_service("b"));
        assert!(!access.policy(None).allows_service("b"));
        assert!(access.policy(None).allows_service("a"));
    }

    #[test]
    fn what_is_denied_is_not_allowed() {
        for (fields, allowed) in [
            ("", [true, true, true]),
            (
                r#""allow": {"services": ["a", "prim*"]}"#,
                [true, false, true],
            ),
            (r#""deny": {"services": ["a"]}"#, [false, true, true]),
            (
                r#""allow": {"services": ["*"]}, "deny": {"services": ["b", "primary"]}"#,
                [true, false, false],
            ),
            (
                r#""allow": {"services": ["a"]}, "deny": {"services": ["*"]}"#,
                [false, false, false],
            ),
            (r#""allow": {"models": ["x"]}"#, [true, true, true]),
        ] {
            let policy = policy(fields);
            let allows = ["a", "b", "primary"].map(|name| policy.allows_service(name));
            assert_eq!(allows, allowed, "{fields}");
        }
    }

    #[test]
    fn a_model_is_known_by_both_of_its_names() {
        const ALLOW: &str = r#""allow": {"models": ["gpt-4o", "qwen-*"]}"#;
        const DENY: &str = r#""deny": {"models": ["gpt-4o", "o3*"]}"#;
        const BOTH: &str = r#""allow": {"models": ["*"]}, "deny": {"models": ["o3"]}"#;
        for (fields, requested, sent, allowed) in [
            (ALLOW, Some("gpt-4o"), Some("gpt-4o-2024"), true),
            (ALLOW, Some("other"), Some("qwen-plus"), true),
            (ALLOW, Some("other"), Some("gpt-4o-2024"), false),
            (ALLOW, Some("GPT-4o"), Some("GPT-4o"), false),
            (ALLOW, None, Some("qwen-plus"), true),
            (ALLOW, None, None, false),
            (DENY, Some("gpt-4o"), Some("other"), false),
            (DENY, Some("other"), Some("o3-mini"), false),
            (DENY, Some("other"), None, true),
            (DENY, None, None, true),
            (BOTH, Some("o3"), Some("x"), false),
            (BOTH, Some("x"), Some("o3"), false),
            (BOTH, Some("x"), Some("x"), true),
            (BOTH, None, None, false),
            ("", None, None, true),
            ("", Some("x"), Some("x"), true),
        ] {
            let policy = policy(fields);
            let allows = policy.allows_model(requested, sent);
            assert_eq!(allows, allowed, "{fields} {requested:?} {sent:?}");
        }
    }

    #[test]
    fn a_policy_that_names_models_says_so() {
        for (fields, restricts) in [
            ("", false),
            (
                r#""allow": {"services": ["a"]}, "deny": {"services": ["b"]}"#,
                false,
            ),
            (r#""allow": {"models": ["*"]}"#, true),
            (r#""deny": {"models": ["x"]}"#, true),
        ] {
            assert_eq!(policy(fields).restricts_models(), restricts, "{fields}");
        }
    }
}
