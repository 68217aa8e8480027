//! The request body of a Model API: which models it asks for, whether it wants a stream, and the
//! edit that makes it ask for another model.
//!
//! One pass over the bytes, no tree, no recursion. What counts as JSON is what `serde_json`
//! accepts, with two differences: nesting ends at [`MAX_DEPTH`], and the members that the filter
//! reads may stand only once, since two parsers could read two different requests otherwise.

mod edit;
mod error;
mod members;
mod models;
mod text;
mod value;

use std::borrow::Cow;
use std::ops::Range;

pub use edit::Edit;
use edit::Splice;
pub use error::BodyError;
use members::Member;
pub(super) use members::{Members, decode};
use models::Models;
pub use value::MAX_DEPTH;

/// What the filter needs to know of a request body. Holds spans, not a copy of the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestBody {
    /// The model asked for; `None` where the body has no `model`.
    pub model: Option<Model>,
    /// True where `stream` is the literal `true`; anything else, or nothing, is false.
    pub stream: bool,
    /// A member is called `model` but for upper and lower case: some services take it for `model`.
    pub has_odd_model: bool,
    models: Option<Models>,
    room: Room,
}

/// The model that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its name, with escapes decoded. May be empty.
    pub name: String,
    span: Range<usize>,
}

/// The place right after `{`, where a member can be added.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Room {
    at: usize,
    /// Whether there are members other than `models`.
    others: bool,
}

impl RequestBody {
    /// Reads a whole body, which must be one JSON object with white space around it at most.
    ///
    /// # Errors
    /// The first thing that is wrong, in the order of the body; except that `model` is looked at
    /// last, so [`BodyError::ModelNotAString`] means that the body is otherwise in order. A `model`
    /// that is a string but no text (half of a surrogate pair) is [`BodyError::ModelNotAString`] too.
    pub fn read(body: &[u8]) -> Result<Self, BodyError> {
        let mut members = Members::of(body)?;
        let at = members.start();
        let (mut model, mut stream) = (None, None);
        let mut models: Option<Models> = None;
        let (mut others, mut has_odd_model) = (false, false);
        while let Some(member) = members.next()? {
            match member.key().as_deref() {
                Some("model") => set_once(&mut model, member, "model")?,
                Some("stream") => set_once(&mut stream, member, "stream")?,
                Some("models") => match &mut models {
                    Some(models) => models.repeated = true,
                    None => {
                        models = Some(Models::new(member, &members));
                        continue;
                    }
                },
                Some(key) => has_odd_model |= key.eq_ignore_ascii_case("model"),
                None => {}
            }
            others = true;
        }
        Ok(Self {
            model: model.map(Model::read).transpose()?,
            stream: stream.is_some_and(|member| member.value() == "true"),
            has_odd_model,
            models,
            room: Room { at, others },
        })
    }

    /// The edit that makes the body carry `model`; `None` where it already does, however the
    /// client wrote it. A body without `model` gets it as its first member.
    pub fn edit(&self, model: &str) -> Option<Edit> {
        let with_comma = self.room.others || self.models.is_some();
        Some(Edit {
            first: self.name_model(model, with_comma)?,
            second: None,
        })
    }

    /// The edit that takes `models` out of the body, with one comma and the white space around it,
    /// and makes the body carry `model` where one is given; `None` where neither changes anything.
    /// Of several `models` it takes out the first: see [`models`](Self::models).
    pub fn edit_without_models(&self, model: Option<&str>) -> Option<Edit> {
        let named = model.and_then(|model| self.name_model(model, self.room.others));
        let removed = self.models.as_ref().map(Models::removed);
        let (first, second) = match (named, removed) {
            // What is added stands where the first member begins, and comes before it.
            (Some(named), Some(removed)) if named.span.start <= removed.span.start => {
                (named, Some(removed))
            }
            (named, Some(removed)) => (removed, named),
            (named, None) => (named?, None),
        };
        Some(Edit { first, second })
    }

    /// The models that the request names in `models`, in their order; `None` where it has no such
    /// member. `body` must be the one that was read, and `max` is the most that it may name.
    ///
    /// # Errors
    /// `models` is there twice, or is not an array of 1 to `max` strings that are text and not
    /// empty. The same name may stand there twice.
    pub fn models(&self, body: &[u8], max: usize) -> Result<Option<Vec<String>>, BodyError> {
        let models = self.models.as_ref();
        models.map(|models| models.names(body, max)).transpose()
    }

    /// The first entry of `models`, where there is one that is a name. `body` must be the one that was read.
    pub fn first_of_models(&self, body: &[u8]) -> Option<String> {
        self.models.as_ref()?.first(body)
    }

    fn name_model(&self, model: &str, with_comma: bool) -> Option<Splice> {
        let value = json_string(model);
        let (span, text) = match &self.model {
            Some(present) if present.name == model => return None,
            Some(present) => (present.span.clone(), value),
            None => self.room.add("model", &value, with_comma),
        };
        let text = text.into_bytes();
        Some(Splice { span, text })
    }
}

impl Model {
    fn read(member: Member<'_>) -> Result<Self, BodyError> {
        let name = member.text().ok_or(BodyError::ModelNotAString)?;
        Ok(Self {
            name: name.into_owned(),
            span: member.span,
        })
    }
}

impl Room {
    fn add(&self, key: &str, value: &str, with_comma: bool) -> (Range<usize>, String) {
        let comma = if with_comma { "," } else { "" };
        (self.at..self.at, format!("\"{key}\":{value}{comma}"))
    }
}

/// `text` as a JSON string, with its quotes.
pub(super) fn json_string(text: &str) -> String {
    // Writing a string to memory cannot fail.
    serde_json::to_string(text).unwrap_or_default()
}

fn set_once<T>(slot: &mut Option<T>, value: T, key: &'static str) -> Result<(), BodyError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(BodyError::Duplicate(key)),
    }
}

/// True where `json` is a JSON object with an `error` at its top level that is neither `null` nor
/// `false`. Anything that [`RequestBody::read`] would refuse as JSON is no error: false.
pub fn top_level_error(json: &[u8]) -> bool {
    holds_error(json).unwrap_or(false)
}

fn holds_error(json: &[u8]) -> Result<bool, BodyError> {
    let mut members = Members::of(json)?;
    let mut found = false;
    // Read to the end even when found: an object cut off behind it is not one.
    while let Some(member) = members.next()? {
        found |= member.key() == Some(Cow::Borrowed("error"))
            && !matches!(member.value(), "null" | "false");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(body: &str, model: &str) -> Option<String> {
        let edit = RequestBody::read(body.as_bytes()).unwrap().edit(model)?;
        let after = edit.apply(body.as_bytes());
        assert_eq!(edit.len_after(body.len()), after.len());
        Some(String::from_utf8(after).unwrap())
    }

    fn nested(levels: usize) -> String {
        let inner = levels - 1;
        format!(r#"{{"a":{}{}}}"#, "[".repeat(inner), "]".repeat(inner))
    }

    #[test]
    fn model_and_stream_are_found() {
        let table = [
            (r#"{}"#, None, false),
            (r#"{"model":"m","stream":true}"#, Some("m"), true),
            (r#"{"stream" : true , "model" : "m" }"#, Some("m"), true),
            (r#"{"stream":false}"#, None, false),
            (r#"{"stream":"true"}"#, None, false),
            (r#"{"stream":1}"#, None, false),
            (r#"{"mod\u0065l":"gpt\u002d4o"}"#, Some("gpt-4o"), false),
            (r#"{"model":""}"#, Some(""), false),
            (r#"{"model":"\ud83d\ude00 é"}"#, Some("😀 é"), false),
            (r#"{"a":{"model":1},"b":[{"stream":true}]}"#, None, false),
            (r#"{"a":"\"model\":\"x\"","model":"m"}"#, Some("m"), false),
            (r#"{"Model":"x","model ":"y","\ud800":"z"}"#, None, false),
            (r#"{"a":1,"a":2,"model":"m"}"#, Some("m"), false),
            (
                "\t\r\n {\"n\":[-0,1e400,0.5E-7,12345678901234567890]}\n",
                None,
                false,
            ),
        ];
        for (body, model, stream) in table {
            let read = RequestBody::read(body.as_bytes()).unwrap();
            assert_eq!(read.model.map(|model| model.name).as_deref(), model);
            assert_eq!(read.stream, stream, "{body}");
        }
    }

    #[test]
    fn only_the_model_is_edited() {
        let table = [
            (r#"{"model":"a"}"#, r#"{"model":"b"}"#),
            (r#"{ "mod\u0065l" :"" }"#, r#"{ "mod\u0065l" :"b" }"#),
            (r#"{}"#, r#"{"model":"b"}"#),
            (r#" { } "#, r#" {"model":"b" } "#),
            (r#"{ "a":1}"#, r#"{"model":"b", "a":1}"#),
        ];
        for (body, after) in table {
            assert_eq!(edited(body, "b").as_deref(), Some(after));
        }
        assert_eq!(
            edited(r#"{"model":"a"}"#, "q\"\n\u{1f600}").as_deref(),
            Some("{\"model\":\"q\\\"\\n\u{1f600}\"}")
        );
    }

    #[test]
    fn the_same_name_keeps_the_bytes() {
        assert_eq!(edited(r#"{"model":"gpt\u002d4o"}"#, "gpt-4o"), None);
    }

    #[test]
    fn bad_bodies_are_refused() {
        use BodyError::*;
        let table: &[(&[u8], BodyError)] = &[
            (b"", Empty),
            (b" \n\t\r", Empty),
            (b"[]", NotAnObject),
            (b"7", NotAnObject),
            (b"\"{}\"", NotAnObject),
            (b"\xef\xbb\xbf{}", NotAnObject),
            (b"\x1f\x8b\x08", NotAnObject),
            (b"{\"a\":\"\xff\"}", NotUtf8 { offset: 6 }),
            (b"{\"a\":\"\xc3", NotUtf8 { offset: 6 }),
            (b"{", Truncated),
            (b"{\"model", Truncated),
            (b"{\"model\":\"m\"", Truncated),
            (b"{\"a\":tru", Truncated),
            (b"{\"a\":-", Truncated),
            (b"{\"a\":\"\\u00", Truncated),
            (b"{}x", Syntax { offset: 2 }),
            (b"{}{}", Syntax { offset: 2 }),
            (b"{,}", Syntax { offset: 1 }),
            (b"{\"a\":1,}", Syntax { offset: 7 }),
            (b"{\"a\":1 \"b\":2}", Syntax { offset: 7 }),
            (b"{\"a\" 1}", Syntax { offset: 5 }),
            (b"{a:1}", Syntax { offset: 1 }),
            (b"{\"a\":}", Syntax { offset: 5 }),
            (b"{\"a\":[1,]}", Syntax { offset: 8 }),
            (b"{\"a\":[1}}", Syntax { offset: 7 }),
            (b"{\"a\":[1]]", Syntax { offset: 8 }),
            (b"{\"a\":{\"b\":1,}}", Syntax { offset: 12 }),
            (b"{\"a\":01}", Syntax { offset: 6 }),
            (b"{\"a\":1.}", Syntax { offset: 7 }),
            (b"{\"a\":+1}", Syntax { offset: 5 }),
            (b"{\"a\":1e}", Syntax { offset: 7 }),
            (b"{\"a\":nul}", Syntax { offset: 8 }),
            (b"{\"a\":NaN}", Syntax { offset: 5 }),
            (b"{\"a\":\"\n\"}", Syntax { offset: 6 }),
            (b"{\"a\":\"\\x\"}", Syntax { offset: 7 }),
            (b"{\"a\":\"\\u12g4\"}", Syntax { offset: 10 }),
            (b"{\"a\":\x0c1}", Syntax { offset: 5 }),
            (br#"{"model":"a","mod\u0065l":"a"}"#, Duplicate("model")),
            (br#"{"model":"a","model":7}"#, Duplicate("model")),
            (br#"{"stream":true,"stream":true}"#, Duplicate("stream")),
            (br#"{"model":7}"#, ModelNotAString),
            (br#"{"model":null}"#, ModelNotAString),
            (br#"{"model":["m"]}"#, ModelNotAString),
            (br#"{"model":"\ud800"}"#, ModelNotAString),
        ];
        for (body, error) in table {
            let body_text = String::from_utf8_lossy(body);
            assert_eq!(RequestBody::read(body), Err(*error), "{body_text}");
        }
    }

    /// Strings are read in blocks, and the rest byte by byte.
    #[test]
    fn a_control_character_is_refused_wherever_it_stands_in_a_string() {
        let behind = ["", r#","b":"a string that fills more than one block""#];
        for (len, behind) in (1..=25).flat_map(|len| behind.map(|behind| (len, behind))) {
            for (at, byte) in (0..len).flat_map(|at| (0..=0x7f).map(move |byte| (at, byte))) {
                let mut text = vec![b'x'; len];
                text[at] = byte;
                let body = [br#"{"a":""#, &text[..], b"\"", behind.as_bytes(), b"}"].concat();
                let read = RequestBody::read(&body);
                match byte {
                    ..0x20 => assert_eq!(read, Err(BodyError::Syntax { offset: 6 + at })),
                    b'"' | b'\\' => {}
                    _ => assert!(read.is_ok(), "{}", String::from_utf8_lossy(&body)),
                }
            }
        }
    }

    #[test]
    fn a_character_beyond_ascii_is_accepted_wherever_it_stands_in_a_string() {
        for (len, at) in (1..=25).flat_map(|len| (0..len).map(move |at| (len, at))) {
            for other in ['\u{80}', 'é', '模', '😀', '\u{10ffff}'] {
                let (before, after) = ("x".repeat(at), "x".repeat(len - at));
                let body = format!(r#"{{"model":"{before}{other}{after}"}}"#);
                assert!(RequestBody::read(body.as_bytes()).is_ok(), "{body}");
            }
        }
    }

    /// UTF-8 is checked in blocks.
    #[test]
    fn what_is_not_utf8_is_told_apart_wherever_it_stands() {
        for at in [0, 1, 1000, 1013, 1014, 1015, 1016, 2040, 3000] {
            let before = format!(r#"{{"user":"{}"#, "x".repeat(at));
            let body = |bytes: &[u8]| [before.as_bytes(), bytes, b"\"}"].concat();
            assert!(RequestBody::read(&body("模".as_bytes())).is_ok(), "{at}");
            let offset = before.len();
            let read = RequestBody::read(&body(b"\xe6\xa8"));
            assert_eq!(read, Err(BodyError::NotUtf8 { offset }));
        }
    }

    #[test]
    fn an_escape_of_less_than_four_hex_digits_is_refused() {
        for digits in 0..4 {
            for next in ['"', 'g', 'G', ' ', '/', ':', '@', '`', '\\', 'é', '\0'] {
                let start = format!(r#"{{"a":"\u{}"#, &"9aF0"[..digits]);
                let offset = start.len();
                let body = format!(r#"{start}{next}0000"}}"#);
                let read = RequestBody::read(body.as_bytes());
                assert_eq!(read, Err(BodyError::Syntax { offset }), "{body}");
            }
        }
        assert!(RequestBody::read(br#"{"a":"\u9aF0"}"#).is_ok());
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        assert!(RequestBody::read(nested(MAX_DEPTH).as_bytes()).is_ok());
        for levels in [MAX_DEPTH + 1, 10_000] {
            let read = RequestBody::read(nested(levels).as_bytes());
            assert_eq!(read, Err(BodyError::TooDeep));
        }
    }

    #[test]
    fn an_error_names_what_is_wrong_in_one_sentence() {
        let table = [
            (BodyError::Syntax { offset: 17 }, "at byte 17", None),
            (BodyError::TooDeep, "512 levels", None),
            (
                BodyError::Duplicate("stream"),
                "`stream` twice",
                Some("stream"),
            ),
            (
                BodyError::ModelNotAString,
                "`model` in the request body is not a string",
                Some("model"),
            ),
            (BodyError::ModelsNotAList, "not an array", Some("models")),
            (BodyError::ModelsEmpty, "names no model", Some("models")),
            (
                BodyError::ModelsTooMany { max: 8 },
                "more than 8 models",
                Some("models"),
            ),
            (
                BodyError::ModelsEntry,
                "not the name of a model",
                Some("models"),
            ),
        ];
        for (error, part, param) in table {
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!(error.param(), param);
        }
    }

    #[test]
    fn a_top_level_error_is_told_from_other_json() {
        let errors = [
            r#"{"error":{"message":"overloaded"}}"#,
            r#" {"id":1,"error":"x"} "#,
            r#"{"type":"error","\u0065rror":{}}"#,
            r#"{"error":0}"#,
            r#"{"error":null,"error":true}"#,
        ];
        let others = [
            r#"{"error":null}"#,
            r#"{"error": false }"#,
            r#"{"choices":[{"error":{}}]}"#,
            r#"{"text":"error"}"#,
            r#"{"error":{}"#,
            r#"{"error":{}}x"#,
            r#"["error"]"#,
            "[DONE]",
            "",
        ];
        for json in errors {
            assert!(top_level_error(json.as_bytes()), "{json}");
        }
        for json in others {
            assert!(!top_level_error(json.as_bytes()), "{json}");
        }
    }
}
