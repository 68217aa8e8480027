//! What tells who a client is: the headers, query parameters and subprotocols that a service with `credentials: service`
//! does not get.

use std::borrow::Cow;

use super::error::quoted;
use super::header;
use super::path_template::split_query;
use super::reader::{Item, Problems};

const FIELDS: &[&str] = &["headers", "query"];

/// Request headers that hold a credential of the client, or name the account that it belongs to. An account that stays
/// behind its key makes a service refuse the gateway's own key.
const HEADERS: [&str; 18] = [
    "api-key",
    "apikey",
    "authorization",
    "cf-aig-authorization",
    "chatgpt-account-id",
    "cookie",
    "helicone-auth",
    "ocp-apim-subscription-key",
    "openai-organization",
    "openai-project",
    "proxy-authorization",
    "x-amz-security-token",
    "x-api-key",
    "x-auth-token",
    "x-goog-api-key",
    "x-goog-user-project",
    "x-litellm-api-key",
    "x-portkey-api-key",
];

/// Query parameters that hold a credential.
const QUERY: [&str; 6] = [
    "access_token",
    "api-key",
    "api_key",
    "apikey",
    "key",
    "subscription-key",
];

/// Browsers cannot set headers on a WebSocket, so they send these as subprotocols, each with its value behind it.
const SUBPROTOCOLS: [&str; 3] = [
    "openai-insecure-api-key.",
    "openai-organization.",
    "openai-project.",
];

/// The header that lists the subprotocols of a WebSocket.
pub const SUBPROTOCOL_HEADER: &str = "sec-websocket-protocol";

/// The names of what tells who a client is: those that are known, and those that `credential_names` adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialNames {
    /// In lower case.
    headers: Vec<String>,
    query: Vec<String>,
}

impl CredentialNames {
    /// `credential_names`.
    pub(super) fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        let expected = "an object with the fields `headers` and `query`";
        let fields = item.fields(problems, expected, FIELDS)?;
        let headers = "a list of header names, at least one";
        let query = "a list of query parameters, at least one";
        Some(Self {
            headers: fields.list(problems, "headers", headers, |item, p| {
                header::read_credential_name(item, p)
            }),
            query: fields.list(problems, "query", query, |item, p| {
                let expected =
                    "the name of a query parameter, without `=`, `&`, `;`, `?`, `#` and `%`";
                let name = item.text(p, expected)?;
                if name.contains(['=', '&', ';', '?', '#', '%']) {
                    return p.report(&item.path, "bad parameter name", &quoted(name), expected);
                }
                Some(name.to_owned())
            }),
        })
    }

    /// Whether a request header, by its name in lower case, belongs to the client alone.
    #[must_use]
    pub fn has_header(&self, name: &str) -> bool {
        HEADERS.contains(&name) || self.headers.iter().any(|own| own == name)
    }

    /// The path without the query parameters that belong to the client alone. Every other byte stays.
    ///
    /// Parameters end at `&` and at `;`, since some services take the second for the first, and their names are compared
    /// as services read them: percent-decoded, in any case.
    #[must_use]
    pub fn without_parameters<'a>(&self, path_and_query: &'a [u8]) -> Cow<'a, [u8]> {
        let (path, Some(query)) = split_query(path_and_query) else {
            return Cow::Borrowed(path_and_query);
        };
        let parts = || parameters(query);
        if !parts().any(|(_, parameter)| self.has_parameter(parameter)) {
            return Cow::Borrowed(path_and_query);
        }
        let mut out = path.to_vec();
        let mut is_first = true;
        for (separator, parameter) in parts().filter(|(_, one)| !self.has_parameter(one)) {
            out.push(if is_first { b'?' } else { separator });
            out.extend_from_slice(parameter);
            is_first = false;
        }
        Cow::Owned(out)
    }

    fn has_parameter(&self, parameter: &[u8]) -> bool {
        let name = parameter.split(|&byte| byte == b'=').next();
        let name = percent_decoded(name.unwrap_or_default());
        // Some services leave out what stands around a name.
        let is_around = |byte: &u8| byte.is_ascii_whitespace() || b"+\0".contains(byte);
        let start = name.iter().position(|byte| !is_around(byte));
        let end = name.iter().rposition(|byte| !is_around(byte));
        let bare = start
            .zip(end)
            .and_then(|(start, end)| name.get(start..=end));
        let name = bare.unwrap_or_default();
        let is_same = |own: &str| own.as_bytes().eq_ignore_ascii_case(name);
        QUERY.into_iter().any(is_same) || self.query.iter().any(|own| is_same(own))
    }
}

/// The subprotocols without those that hold a credential; `None` where nothing is left.
#[must_use]
pub fn without_secret_subprotocols(value: &[u8]) -> Option<Vec<u8>> {
    let is_secret = |one: &&[u8]| {
        let one = one.trim_ascii();
        SUBPROTOCOLS.iter().any(|prefix| {
            one.get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
        })
    };
    let mut all = value.split(|&byte| byte == b',').peekable();
    if !all.clone().any(|one| is_secret(&one)) {
        return Some(value.to_vec());
    }
    all.next_if(|one| one.is_empty());
    let rest: Vec<&[u8]> = all
        .filter(|one| !is_secret(one))
        .map(<[u8]>::trim_ascii)
        .collect();
    (!rest.is_empty()).then(|| rest.join(&b", "[..]))
}

/// Each parameter, with the byte that stands before it.
fn parameters(query: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut separator = b'?';
    query
        .split_inclusive(|byte| matches!(byte, b'&' | b';'))
        .map(move |part| match part.split_last() {
            Some((&last @ (b'&' | b';'), parameter)) => {
                (std::mem::replace(&mut separator, last), parameter)
            }
            _ => (separator, part),
        })
}

/// The bytes with each `%41` as the byte that it stands for. What is none stays.
#[must_use]
pub fn percent_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let hex = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let decoded = (byte == b'%').then(|| Some((hex(after.first())?, hex(after.get(1))?)));
        match decoded.flatten() {
            Some((high, low)) => {
                out.push((high << 4 | low) as u8);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_loses_what_belongs_to_the_client_and_nothing_else() {
        let names = CredentialNames {
            headers: Vec::new(),
            query: vec!["sig".to_owned()],
        };
        for (path, expected) in [
            ("/v1?key=CLIENT&alt=sse", "/v1?alt=sse"),
            ("/v1?alt=sse&key=CLIENT", "/v1?alt=sse"),
            ("/v1?a=%20&key=CLIENT&&b=1;c", "/v1?a=%20&&b=1;c"),
            ("/v1?key=CLIENT", "/v1"),
            ("/v1?key", "/v1"),
            ("/v1?key=a&KEY=b&Api-Key=c&sig=d", "/v1"),
            ("/v1?%6bey=a&x=1", "/v1?x=1"),
            ("/v1?a=1;access_token=b;c=2", "/v1?a=1;c=2"),
            ("/v1?+key=a&key%20=b&%00key+=c&x=1", "/v1?x=1"),
            (
                "/v1?monkey=a&keys=b&key%3D=c",
                "/v1?monkey=a&keys=b&key%3D=c",
            ),
            ("/v1?", "/v1?"),
            ("/v1/key=a", "/v1/key=a"),
            ("/v1?q=key%3da", "/v1?q=key%3da"),
            ("/v1?x=1?key=2", "/v1?x=1?key=2"),
        ] {
            let stripped = names.without_parameters(path.as_bytes());
            assert_eq!(String::from_utf8_lossy(&stripped), expected, "{path}");
        }
    }

    #[test]
    fn subprotocols_lose_their_keys() {
        for (value, expected) in [
            (
                "realtime, openai-beta.realtime-v1",
                Some("realtime, openai-beta.realtime-v1"),
            ),
            (
                "realtime,openai-insecure-api-key.sk-1, x",
                Some("realtime, x"),
            ),
            ("realtime, OpenAI-Insecure-API-Key.sk-1", Some("realtime")),
            ("openai-insecure-api-key.sk-1", None),
            ("a, openai-organization.o,openai-project.p", Some("a")),
        ] {
            let rest = without_secret_subprotocols(value.as_bytes());
            let rest = rest.map(|rest| String::from_utf8(rest).unwrap());
            assert_eq!(rest.as_deref(), expected, "{value}");
        }
    }
}
