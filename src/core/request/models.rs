//! `models`: the names of further models that a request asks for.

use std::borrow::Cow;
use std::ops::Range;

use super::BodyError;
use super::edit::Splice;
use super::members::{Member, Members, decode};
use super::text::Text;

/// Where `models` stands in a body. It is not looked into before somebody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Models {
    /// The member, and what goes with it: one comma, and the white space up to there.
    member: Range<usize>,
    value: Range<usize>,
    /// The member is there more than once.
    pub repeated: bool,
}

impl Models {
    /// The member that `members` has read last.
    pub fn new(member: Member<'_>, members: &Members<'_>) -> Self {
        // The comma before it goes with it; the first member has none, but one behind it.
        let end = match member.start == members.start() {
            true => members.behind_comma(),
            false => member.span.end,
        };
        Self {
            member: member.start..end,
            value: member.span,
            repeated: false,
        }
    }

    /// The first entry, where it is a name.
    pub fn first(&self, body: &[u8]) -> Option<String> {
        let value = std::str::from_utf8(body.get(self.value.clone())?).ok()?;
        let text = Text(value.as_bytes());
        let at = text.space(1);
        let end = text.string(at).ok()?;
        value.get(at..end).and_then(decode).map(Cow::into_owned)
    }

    /// See [`RequestBody::models`](super::RequestBody::models).
    pub fn names(&self, body: &[u8], max: usize) -> Result<Vec<String>, BodyError> {
        if self.repeated {
            return Err(BodyError::Duplicate("models"));
        }
        let value = body.get(self.value.clone()).unwrap_or_default();
        let value = std::str::from_utf8(value).unwrap_or_default();
        let text = Text(value.as_bytes());
        if text.byte(0) != Some(b'[') {
            return Err(BodyError::ModelsNotAList);
        }
        let mut at = text.space(1);
        if text.byte(at) == Some(b']') {
            return Err(BodyError::ModelsEmpty);
        }
        let mut names = Vec::new();
        loop {
            if names.len() == max {
                return Err(BodyError::ModelsTooMany { max });
            }
            // The value is known to be JSON, so what is no string does not begin like one.
            let end = text.string(at).map_err(|_| BodyError::ModelsEntry)?;
            let name = value.get(at..end).and_then(decode);
            let name = name.filter(|name| !name.is_empty());
            names.push(name.ok_or(BodyError::ModelsEntry)?.into_owned());
            at = text.space(end);
            if text.byte(at) != Some(b',') {
                return Ok(names);
            }
            at = text.space(at + 1);
        }
    }

    pub fn removed(&self) -> Splice {
        Splice {
            span: self.member.clone(),
            text: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RequestBody;
    use super::*;

    const MAX: usize = 3;

    fn read(body: &str) -> RequestBody {
        RequestBody::read(body.as_bytes()).unwrap()
    }

    fn names(body: &str) -> Result<Option<Vec<String>>, BodyError> {
        read(body).models(body.as_bytes(), MAX)
    }

    /// The body without `models`.
    fn without(body: &str, model: Option<&str>) -> Option<String> {
        let edit = read(body).edit_without_models(model)?;
        let after = edit.apply(body.as_bytes());
        assert_eq!(edit.len_after(body.len()), after.len(), "{body}");
        let (len, start) = edit.prefix(body.as_bytes());
        assert_eq!(after, [&start, &body.as_bytes()[len..]].concat(), "{body}");
        Some(String::from_utf8(after).unwrap())
    }

    #[test]
    fn the_models_are_read_in_their_order() {
        let table: [(&str, &[&str]); 6] = [
            (r#"{"models":["a"]}"#, &["a"]),
            (r#"{"models":["a","b","a"]}"#, &["a", "b", "a"]),
            ("{\"models\" : [ \"a\"\n,\t\"b\" ] }", &["a", "b"]),
            (r#"{"mod\u0065ls":["gpt\u002d4o"]}"#, &["gpt-4o"]),
            (r#"{"models":["\ud83d\ude00 é"]}"#, &["😀 é"]),
            (r#"{"models":["],[\"","\\"]}"#, &["],[\"", "\\"]),
        ];
        for (body, expected) in table {
            let expected = expected.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(names(body), Ok(Some(expected)), "{body}");
        }
        assert_eq!(names(r#"{"model":"m","x":{"models":["a"]}}"#), Ok(None));
    }

    #[test]
    fn other_models_are_refused_when_they_are_asked_for() {
        use BodyError::*;
        let table = [
            (r#"{"models":null}"#, ModelsNotAList),
            (r#"{"models":"a"}"#, ModelsNotAList),
            (r#"{"models":{"a":1}}"#, ModelsNotAList),
            (r#"{"models":[]}"#, ModelsEmpty),
            (r#"{"models":[ ]}"#, ModelsEmpty),
            (
                r#"{"models":["a","b","c","d"]}"#,
                ModelsTooMany { max: MAX },
            ),
            (r#"{"models":["a","b","c",4]}"#, ModelsTooMany { max: MAX }),
            (r#"{"models":[4,"b","c","d"]}"#, ModelsEntry),
            (r#"{"models":["a",null]}"#, ModelsEntry),
            (r#"{"models":[["a"]]}"#, ModelsEntry),
            (r#"{"models":["a",""]}"#, ModelsEntry),
            (r#"{"models":["\ud800"]}"#, ModelsEntry),
            (r#"{"models":["a"],"models":["a"]}"#, Duplicate("models")),
            (r#"{"models":7,"mod\u0065ls":["a"]}"#, Duplicate("models")),
        ];
        for (body, error) in table {
            assert_eq!(names(body), Err(error), "{body}");
            assert_eq!(error.param(), Some("models"));
        }
    }

    #[test]
    fn models_goes_with_one_comma() {
        let table = [
            (r#"{"models":["a"]}"#, "{}"),
            (r#"{ "models" : ["a"] }"#, "{ }"),
            (r#"{"models":["a"],"x":1}"#, r#"{"x":1}"#),
            (r#" { "models": ["a"] , "x": 1 } "#, r#" { "x": 1 } "#),
            (r#"{"x":1,"models":["a"]}"#, r#"{"x":1}"#),
            (r#"{ "x": 1 , "models": ["a"] }"#, r#"{ "x": 1 }"#),
            (r#"{"x":1,"models":["a"],"y":2}"#, r#"{"x":1,"y":2}"#),
            (r#"{"x":1 , "models":7 , "y":2}"#, r#"{"x":1 , "y":2}"#),
            (r#"{"x":[1,2],"mod\u0065ls":[]}"#, r#"{"x":[1,2]}"#),
            (
                "{\n  \"models\": [\"a\"],\n  \"x\": 1\n}\n",
                "{\n  \"x\": 1\n}\n",
            ),
            (
                "{\r\n\t\"x\": 1,\r\n\t\"models\": [\"a\"],\r\n\t\"y\": 2\r\n}",
                "{\r\n\t\"x\": 1,\r\n\t\"y\": 2\r\n}",
            ),
            (
                "{\n  \"x\": 1,\n  \"models\": [\n    \"a\"\n  ]\n}",
                "{\n  \"x\": 1\n}",
            ),
        ];
        for (body, after) in table {
            let expected = Some(after.to_owned());
            assert_eq!(without(body, None), expected, "{body}");
        }
    }

    #[test]
    fn models_goes_and_the_model_is_named() {
        let table = [
            (r#"{"model":"m","models":[1]}"#, r#"{"model":"n"}"#),
            (r#"{"models":[1],"model":"m"}"#, r#"{"model":"n"}"#),
            (r#"{"model":"n","models":[1]}"#, r#"{"model":"n"}"#),
            (
                r#"{"model" : "m" , "x":1, "models":[1], "y":2}"#,
                r#"{"model" : "n" , "x":1, "y":2}"#,
            ),
            (
                r#"{ "models":[1], "x":1, "model" : "m" , "y":2}"#,
                r#"{ "x":1, "model" : "n" , "y":2}"#,
            ),
            (r#"{"models":[1]}"#, r#"{"model":"n"}"#),
            (r#"{ "models":[1] }"#, r#"{"model":"n" }"#),
            (r#"{"models":[1], "x":1}"#, r#"{"model":"n", "x":1}"#),
            (r#"{ "x":1 , "models":[1]}"#, r#"{"model":"n", "x":1}"#),
            (
                r#"{"x":1,"models":7,"y":2}"#,
                r#"{"model":"n","x":1,"y":2}"#,
            ),
            // Without `models` it is the other edit.
            (r#"{}"#, r#"{"model":"n"}"#),
            (r#"{"x":1}"#, r#"{"model":"n","x":1}"#),
            (r#"{"model":"m"}"#, r#"{"model":"n"}"#),
            // Of two the first goes: no comma is lost.
            (r#"{"models":1,"models":2}"#, r#"{"model":"n","models":2}"#),
        ];
        for (body, after) in table {
            let expected = Some(after.to_owned());
            assert_eq!(without(body, Some("n")), expected, "{body}");
        }
    }

    #[test]
    fn nothing_to_change_is_no_edit() {
        assert_eq!(without(r#"{"x":1}"#, None), None);
        assert_eq!(without(r#"{"model":"n"}"#, Some("n")), None);
        assert_eq!(without("{}", None), None);
    }

    #[test]
    fn models_stays_where_it_is_not_used() {
        let table = [
            (r#"{"models":[1]}"#, r#"{"model":"n","models":[1]}"#),
            (
                r#"{"models":1,"models":2}"#,
                r#"{"model":"n","models":1,"models":2}"#,
            ),
            (
                r#"{"models":[1],"model":"m"}"#,
                r#"{"models":[1],"model":"n"}"#,
            ),
        ];
        for (body, after) in table {
            let edit = read(body).edit("n").unwrap();
            assert_eq!(edit.apply(body.as_bytes()), after.as_bytes());
        }
    }
}
