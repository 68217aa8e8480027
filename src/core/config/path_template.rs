//! `path` of a service: what the path of a request becomes.

use std::borrow::Cow;

use super::error::one_of;

/// A path with the placeholders `{path}` (the path of the request as it came) and `{model}` (the
/// name of the model sent, URL-encoded).
///
/// The query of the request is kept at the end of the path, after any query of the template. A
/// template that has a query and no `{path}` stands for the whole, and the query of the request is
/// dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    parts: Vec<Part>,
    keeps_query: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Path,
    Model,
}

impl PathTemplate {
    /// `{path}`: the path as it came.
    #[must_use]
    pub fn unchanged() -> Self {
        PathTemplate {
            parts: vec![Part::Path],
            keeps_query: true,
        }
    }

    /// Reads a template.
    ///
    /// # Errors
    /// What was expected instead: a path that starts with `/` or `{path}`, with no other
    /// placeholder, no brace of its own, no white space, no control character and no `#`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
            return Err("a path without white space, control characters and `#`".to_owned());
        }
        if !text.starts_with('/') && !text.starts_with("{path}") {
            return Err("a path that starts with `/` or `{path}`".to_owned());
        }
        let parts = parts(text)?;
        let keeps_query = parts.contains(&Part::Path) || !text.contains('?');
        Ok(PathTemplate { parts, keeps_query })
    }

    /// The path to send. `original` is the path of the request with its query; it is borrowed where
    /// it stays as it came. So it does where a model is wanted and none is known.
    #[must_use]
    pub fn render<'a>(&self, original: &'a [u8], model: Option<&str>) -> Cow<'a, [u8]> {
        let wants_model = self.parts.contains(&Part::Model);
        if self.parts == [Part::Path] || (wants_model && model.is_none()) {
            return Cow::Borrowed(original);
        }
        let (path, query) = split_query(original);
        let mut out = Vec::with_capacity(original.len() + 64);
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Path => out.extend_from_slice(path),
                Part::Model => encode(model.unwrap_or_default(), &mut out),
            }
        }
        if let Some(query) = query.filter(|_| self.keeps_query) {
            out.push(if out.contains(&b'?') { b'&' } else { b'?' });
            out.extend_from_slice(query);
        }
        Cow::Owned(out)
    }
}

/// The path, and the query without its `?`.
pub(super) fn split_query(path_and_query: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut halves = path_and_query.splitn(2, |byte| *byte == b'?');
    (halves.next().unwrap_or_default(), halves.next())
}

fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, tail) = after.split_once('}').ok_or("a `}` after each `{`")?;
        push_text(&mut parts, before)?;
        parts.push(placeholder(name)?);
        rest = tail;
    }
    push_text(&mut parts, rest)?;
    Ok(parts)
}

fn push_text(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if text.contains('}') {
        return Err("a `{` before each `}`".to_owned());
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
    Ok(())
}

fn placeholder(name: &str) -> Result<Part, String> {
    match name {
        "path" => Ok(Part::Path),
        "model" => Ok(Part::Model),
        _ => Err(format!(
            "in braces {}",
            one_of(&["path", "model"], '`', name)
        )),
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn encode(text: &str, out: &mut Vec<u8>) {
    // As a path segment these two would climb, also when encoded once. No model is called so; twice
    // encoded it is just unknown.
    if text == "." || text == ".." {
        return out.extend_from_slice(text.replace('.', "%252E").as_bytes());
    }
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend([b'%', hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
    }
}

fn hex_digit(value: u8) -> u8 {
    if value < 10 {
        b'0' + value
    } else {
        b'A' + value - 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str, original: &str, model: Option<&str>) -> String {
        let path = PathTemplate::parse(template).unwrap();
        String::from_utf8(path.render(original.as_bytes(), model).into_owned()).unwrap()
    }

    #[test]
    fn the_default_keeps_every_byte_and_copies_nothing() {
        assert_eq!(
            PathTemplate::parse("{path}").unwrap(),
            PathTemplate::unchanged()
        );
        for original in [
            b"/v1//x?a=1?b&{model}\xff".as_slice(),
            b"/v1/x?",
            b"/",
            b"*",
            b"",
        ] {
            let path = PathTemplate::unchanged().render(original, Some("m"));
            assert!(matches!(path, Cow::Borrowed(path) if path == original));
        }
    }

    #[test]
    fn templates_are_filled_in() {
        for (template, original, path) in [
            ("/proxy{path}", "/v1/x", "/proxy/v1/x"),
            ("/proxy{path}", "/v1/x?a=b", "/proxy/v1/x?a=b"),
            ("{path}/tail", "/v1/x?a=b", "/v1/x/tail?a=b"),
            ("{path}?v=1", "/v1/x?a=b", "/v1/x?v=1&a=b"),
            ("{path}?v=1", "/v1/x", "/v1/x?v=1"),
            ("/fixed", "/v1/x?a=b", "/fixed?a=b"),
            ("/fixed", "/v1/x?", "/fixed?"),
            ("/fixed", "/v1/x", "/fixed"),
            ("/fixed?v=1", "/v1/x?a=b", "/fixed?v=1"),
            ("/d/{model}/chat", "/v1/x", "/d/m/chat"),
        ] {
            assert_eq!(
                rendered(template, original, Some("m")),
                path,
                "{template} {original}"
            );
        }
    }

    #[test]
    fn the_model_is_url_encoded() {
        for (model, path) in [
            (Some("gpt-4o_2.5~a"), "/m/gpt-4o_2.5~a"),
            (
                Some("org/llama 3?x#y%é"),
                "/m/org%2Fllama%203%3Fx%23y%25%C3%A9",
            ),
            (Some("../../admin"), "/m/..%2F..%2Fadmin"),
            (Some(".."), "/m/%252E%252E"),
            (None, "/v1"),
        ] {
            assert_eq!(rendered("/m/{model}", "/v1", model), path);
        }
    }

    #[test]
    fn a_placeholder_in_the_request_is_not_filled_in() {
        assert_eq!(rendered("/p{path}", "/{model}", Some("m")), "/p/{model}");
    }

    #[test]
    fn bad_templates_are_refused() {
        for text in [
            "",
            "v1",
            "v1{path}",
            "{model}/x",
            "/{",
            "/}",
            "/{}",
            "/{modle}",
            "/{path",
            "/a b",
            "/a\n",
            "/a#b",
        ] {
            assert!(PathTemplate::parse(text).is_err(), "{text}");
        }
    }
}
