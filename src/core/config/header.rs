//! Header names and values: those set on requests to a service, those a Model API is matched by, and
//! the one that says who calls. A value may be a credential, so no message repeats one.

use super::error::quoted;
use super::pattern::Pattern;
use super::reader::{Item, Problems};

/// `(name in lower case, value)`.
pub(super) type Header = (String, String);
/// Looks up an environment variable.
pub(super) type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Headers that follow from the request and its body, and are set by other means.
const RESERVED: [&str; 7] = [
    "x-ai-fallback",
    "x-ai-hops",
    "host",
    "content-length",
    "transfer-encoding",
    "traceparent",
    "tracestate",
];
/// The filter's own, and those by which Envoy's router is told what to do.
const RESERVED_PREFIXES: [&str; 3] = [":", OWN_PREFIX, "x-envoy-"];
const OWN_PREFIX: &str = "x-ai-fallback-";
/// Without these a request is none, or another one; without the last Envoy finds no route for it (1.40). No pattern takes
/// them away.
pub(super) const KEPT: [&str; 5] = [
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "x-forwarded-proto",
];
const EXPECTED_VALUE: &str = "text without control characters";

/// The headers to set on requests to a service, sorted by name.
pub(super) fn read_set(item: &Item<'_>, env: Env<'_>, problems: &mut Problems) -> Vec<Header> {
    read(item, problems, |name, item, problems| {
        let reserved = RESERVED.contains(&name)
            || RESERVED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix));
        if reserved {
            return problems.report(
                &item.path,
                "reserved header name",
                &quoted(name),
                "a header the filter does not set itself",
            );
        }
        let value = read_value(item, problems)?;
        substitute(value, item, env, problems).filter(|value| is_clean(value, item, problems))
    })
}

/// The headers a request must have, sorted by name.
pub(super) fn read_match(item: &Item<'_>, problems: &mut Problems) -> Vec<Header> {
    read(item, problems, |name, item, problems| {
        if name == "host" {
            return problems.report(
                &item.path,
                "header that never matches",
                "\"host\"",
                "`:authority`, which Envoy makes of it",
            );
        }
        let value = read_value(item, problems)?;
        is_clean(value, item, problems).then(|| value.to_owned())
    })
}

/// The name of the header that says who calls, in lower case.
pub(super) fn read_identity(
    item: &Item<'_>,
    expected: &str,
    problems: &mut Problems,
) -> Option<String> {
    let name = read_name(item.any_text(problems, expected)?, item, problems)?;
    let reserved = name.starts_with(':') || name == "host" || name.starts_with(OWN_PREFIX);
    if reserved {
        return problems.report(&item.path, "reserved header name", &quoted(&name), expected);
    }
    Some(name)
}

/// The name of a header that holds a client's credential, in lower case.
pub(super) fn read_credential_name(item: &Item<'_>, problems: &mut Problems) -> Option<String> {
    let expected = "the name of a request header, without `*`";
    let name = read_name(item.any_text(problems, expected)?, item, problems)?;
    if name.starts_with(':') || name == "host" || name == "content-length" || name.contains('*') {
        return problems.report(&item.path, "reserved header name", &quoted(&name), expected);
    }
    Some(name)
}

/// A pattern of names of client headers, in lower case, that a service does not get.
pub(super) fn read_removed(item: &Item<'_>, problems: &mut Problems) -> Option<Pattern> {
    let expected = "the name of a request header, with `*` for any run of characters";
    let text = item.any_text(problems, expected)?;
    let name = read_name(text, item, problems)?;
    if name.starts_with(':') || KEPT.contains(&name.as_str()) {
        return problems.report(&item.path, "reserved header name", &quoted(text), expected);
    }
    match Pattern::parse(&name) {
        Ok(pattern) => Some(pattern),
        Err(expected) => problems.report(&item.path, "bad pattern", &quoted(text), expected),
    }
}

fn read(
    item: &Item<'_>,
    problems: &mut Problems,
    mut read_value: impl FnMut(&str, &Item<'_>, &mut Problems) -> Option<String>,
) -> Vec<Header> {
    let entries = item.entries(problems, "an object of header names and values");
    let mut headers: Vec<Header> = Vec::with_capacity(entries.len());
    for (key, item) in &entries {
        let name = read_name(key, item, problems);
        let value = read_value(name.as_deref().unwrap_or_default(), item, problems);
        let Some(name) = name else { continue };
        match headers.binary_search_by(|(other, _)| other.cmp(&name)) {
            Err(at) => headers.insert(at, (name, value.unwrap_or_default())),
            Ok(_) => {
                let expected = "each name once, in any case";
                problems.report::<()>(&item.path, "duplicate header name", &quoted(key), expected);
            }
        }
    }
    headers
}

/// A token of RFC 9110, or the name of a pseudo header.
fn read_name(key: &str, item: &Item<'_>, problems: &mut Problems) -> Option<String> {
    let token = key.strip_prefix(':').unwrap_or(key);
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if token.is_empty() || !token.bytes().all(valid) {
        return problems.report(
            &item.path,
            "bad header name",
            &quoted(key),
            "letters, digits and -",
        );
    }
    Some(key.to_ascii_lowercase())
}

fn read_value<'a>(item: &Item<'a>, problems: &mut Problems) -> Option<&'a str> {
    item.any_text(problems, EXPECTED_VALUE)
}

fn is_clean(value: &str, item: &Item<'_>, problems: &mut Problems) -> bool {
    let bad = value.char_indices().find(|(_, letter)| letter.is_control());
    if let Some((at, _)) = bad {
        let got = format!("a control character after {at} bytes");
        problems.report::<()>(&item.path, "bad header value", &got, EXPECTED_VALUE);
    }
    bad.is_none()
}

/// Puts the values of environment variables in the place of `${NAME}`. `$${` stands for `${`.
fn substitute(
    text: &str,
    item: &Item<'_>,
    env: Env<'_>,
    problems: &mut Problems,
) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut complete = true;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            let expected = "`${NAME}`, or `$${` for a literal `${`";
            return problems.report(
                &item.path,
                "unterminated variable",
                "a `${` without `}`",
                expected,
            );
        };
        match variable(name, item, env, problems) {
            Some(value) => out.push_str(&value),
            None => complete = false,
        }
        rest = tail;
    }
    out.push_str(rest);
    complete.then_some(out)
}

fn variable(name: &str, item: &Item<'_>, env: Env<'_>, problems: &mut Problems) -> Option<String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || !name.bytes().all(valid) {
        // Not repeated: with a forgotten brace it would be the rest of the value.
        return problems.report(
            &item.path,
            "bad variable name",
            "other characters",
            "letters, digits and _ in `${NAME}`",
        );
    }
    let value = env(name);
    if value.is_none() {
        problems.report::<()>(
            &item.path,
            "missing environment variable",
            &quoted(name),
            "a variable of the VM, set in `vm_config.environment_variables`",
        );
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config::Node;

    fn value(text: &str) -> Result<String, Vec<String>> {
        let node = Node::Null;
        let mut problems = Problems::default();
        let env = |name: &str| (name == "A_1").then(|| "one".to_owned());
        let value = substitute(text, &Item::root(&node), &env, &mut problems);
        value.ok_or_else(|| problems.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn variables_are_substituted() {
        for (text, expected) in [
            ("", ""),
            ("plain $5 {x} $", "plain $5 {x} $"),
            ("${A_1}", "one"),
            ("Bearer ${A_1}${A_1}!", "Bearer oneone!"),
            ("$${A_1} ${A_1}", "${A_1} one"),
            ("$$${A_1}", "$${A_1}"),
        ] {
            assert_eq!(value(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn every_bad_variable_is_reported() {
        assert_eq!(value("${X} ${A_1} ${Y} ${}").unwrap_err().len(), 3);
        assert_eq!(value("${X} ${A_1").unwrap_err().len(), 2);
    }
}
