//! Properties of the request body reader: what it accepts is what `serde_json` accepts, apart from
//! the differences it documents, and an edit touches the bytes of `model` and `models` alone.

use ai_fallback::core::provider_error::ProviderError;
use ai_fallback::core::request::{BodyError, Edit, MAX_DEPTH, RequestBody, top_level_error};
use proptest::collection::vec;
use proptest::option::of as option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

proptest! {
    #[test]
    fn an_edit_changes_the_model_value_alone(doc in document(), name in model_name()) {
        let before = doc.text();
        let read = RequestBody::read(before.as_bytes()).unwrap();
        let old_name: String = serde_json::from_str(&doc.model).unwrap();
        prop_assert_eq!(&read.model.as_ref().unwrap().name, &old_name);
        prop_assert_eq!(read.stream, doc.stream);

        let Some(edit) = read.edit(&name) else {
            prop_assert_eq!(name, old_name);
            return Ok(());
        };
        prop_assert_ne!(&name, &old_name);
        let after = edit.apply(before.as_bytes());
        let written = serde_json::to_string(&name).unwrap();
        let expected = [doc.head.as_str(), &written, &doc.tail].concat();
        prop_assert_eq!(std::str::from_utf8(&after).unwrap(), expected);
        prop_assert_eq!(edit.len_after(before.len()), after.len());
        let again = RequestBody::read(&after).unwrap();
        prop_assert_eq!(again.model.unwrap().name, name);
    }

    #[test]
    fn the_name_it_has_already_is_no_edit(doc in document()) {
        let read = RequestBody::read(doc.text().as_bytes()).unwrap();
        let name = read.model.as_ref().unwrap().name.clone();
        prop_assert_eq!(read.edit(&name), None);
    }

    #[test]
    fn a_model_is_added_to_a_body_without_one(
        lead in space(), members in members(), gap in space(), name in model_name(),
    ) {
        let before = format!("{lead}{{{gap}{members}}}{gap}");
        let read = RequestBody::read(before.as_bytes()).unwrap();
        prop_assert_eq!(&read.model, &None);

        let after = read.edit(&name).unwrap().apply(before.as_bytes());
        let written = serde_json::to_string(&name).unwrap();
        let comma = if members.is_empty() { "" } else { "," };
        let expected = format!("{lead}{{\"model\":{written}{comma}{gap}{members}}}{gap}");
        prop_assert_eq!(std::str::from_utf8(&after).unwrap(), expected);
        prop_assert_eq!(RequestBody::read(&after).unwrap().model.unwrap().name, name);
    }

    #[test]
    fn models_goes_and_every_other_byte_stays(listing in listing(), name in option(model_name())) {
        let before = listing.text();
        let read = RequestBody::read(before.as_bytes()).unwrap();
        let after = listing.without_models(name.as_deref());
        let Some(edit) = read.edit_without_models(name.as_deref()) else {
            prop_assert_eq!(after, before);
            return Ok(());
        };
        prop_assert_eq!(&applied(&edit, &before)?, &after);

        prop_assert!(oracle::keys(&after).iter().all(|key| key != "models"), "{}", after);
        // What it cannot read, such as a number that is too large, it need not compare.
        if let Ok(mut expected) = serde_json::from_str::<serde_json::Map<_, _>>(&before) {
            expected.remove("models");
            if let Some(name) = &name {
                expected.insert("model".to_owned(), name.as_str().into());
            }
            let after: serde_json::Map<_, _> = serde_json::from_str(&after).unwrap();
            prop_assert_eq!(after, expected);
        }
        let again = RequestBody::read(after.as_bytes()).unwrap();
        prop_assert_eq!(again.edit_without_models(name.as_deref()), None);
    }

    #[test]
    fn models_that_are_left_alone_stay(listing in listing(), name in model_name()) {
        let before = listing.text();
        let read = RequestBody::read(before.as_bytes()).unwrap();
        let Some(edit) = read.edit(&name) else { return Ok(()) };
        let after = applied(&edit, &before)?;
        let mut keys = oracle::keys(&before);
        if !keys.iter().any(|key| key == "model") {
            keys.insert(0, "model".to_owned());
        }
        prop_assert_eq!(oracle::keys(&after), keys);
        let again = RequestBody::read(after.as_bytes()).unwrap();
        prop_assert_eq!(again.models(after.as_bytes(), 3), read.models(before.as_bytes(), 3));
    }

    #[test]
    fn models_are_those_that_serde_json_reads(listing in listing(), max in 1..5_usize) {
        let body = listing.text();
        let read = RequestBody::read(body.as_bytes()).unwrap();
        let models = read.models(body.as_bytes(), max);
        let Some(value) = &listing.models else {
            prop_assert_eq!(models, Ok(None));
            return Ok(());
        };
        match oracle::models(value, max) {
            Ok(names) => prop_assert_eq!(models, Ok(Some(names)), "{}", value),
            Err(error) => prop_assert_eq!(models, Err(error), "{}", value),
        }
    }

    #[test]
    fn models_that_stand_twice_are_refused_only_where_they_are_used(
        listing in listing(), value in models_value(),
    ) {
        let mut body = listing.text();
        let end = body.rfind('}').unwrap();
        let comma = if listing.members.is_empty() { "" } else { "," };
        body.insert_str(end, &format!("{comma}\"models\":{value}"));
        let read = RequestBody::read(body.as_bytes()).unwrap();
        let models = read.models(body.as_bytes(), 3);
        let twice = models == Err(BodyError::Duplicate("models"));
        prop_assert_eq!(twice, listing.models.is_some());
        if let Some(edit) = read.edit_without_models(Some("n")) {
            let after = applied(&edit, &body)?;
            prop_assert!(RequestBody::read(after.as_bytes()).is_ok(), "{}", after);
        }
    }

    #[test]
    fn mutated_documents_are_judged_as_serde_json_does(
        doc in document(), changes in vec(mutation(), 1..4),
    ) {
        let mut body = doc.text().into_bytes();
        changes.iter().for_each(|change| change.make(&mut body));
        agrees(&body)?;
    }

    #[test]
    fn token_soup_is_judged_as_serde_json_does(tokens in vec(select(TOKENS), 0..24)) {
        agrees(tokens.concat().as_bytes())?;
        agrees(format!("{{\"a\":{}}}", tokens.concat()).as_bytes())?;
    }

    #[test]
    fn arbitrary_bytes_are_judged_as_serde_json_does(bytes in vec(any::<u8>(), 0..64)) {
        agrees(&bytes)?;
        agrees(&[b"{\"a\":\"", &bytes[..], b"\"}"].concat())?;
    }

    #[test]
    fn arbitrary_strings_are_judged_as_serde_json_does(bytes in vec(string_byte(), 0..80)) {
        agrees(&[b"{\"", &bytes[..], b"\":0}"].concat())?;
        agrees(&[b"{\"a\":\"", &bytes[..], b"\"}"].concat())?;
    }

    #[test]
    fn a_document_cut_short_is_never_accepted(doc in document(), at in any::<Index>()) {
        let body = doc.text();
        let cut = &body.as_bytes()[..at.index(body.trim_end().len())];
        let error = RequestBody::read(cut).unwrap_err();
        let cut_short = matches!(
            error,
            BodyError::Truncated | BodyError::Empty | BodyError::NotUtf8 { .. }
        );
        prop_assert!(cut_short, "{}", error);
    }

    #[test]
    fn nesting_is_accepted_up_to_the_limit(kinds in vec(any::<bool>(), MAX_DEPTH - 4..MAX_DEPTH + 4)) {
        let open: String = kinds.iter().map(|array| if *array { "[" } else { "{\"k\":" }).collect();
        let close: String = kinds.iter().rev().map(|array| if *array { ']' } else { '}' }).collect();
        let body = format!("{{\"model\":\"m\",\"deep\":{open}0{close}}}");
        let levels = kinds.len() + 1;
        prop_assert_eq!(RequestBody::read(body.as_bytes()).is_ok(), levels <= MAX_DEPTH);
        agrees(body.as_bytes())?;
    }
}

/// The reader and `serde_json` come to the same verdict on `body`.
fn agrees(body: &[u8]) -> Result<(), TestCaseError> {
    let read = RequestBody::read(body);
    let verdict = oracle::judge(body);
    let shown = String::from_utf8_lossy(body);
    match (&read, &verdict) {
        (Ok(read), oracle::Verdict::Accepted { model }) => {
            let name = read.model.as_ref().map(|model| &model.name);
            prop_assert_eq!(name, model.as_ref(), "{}", shown);
        }
        (Err(error), oracle::Verdict::Excepted(expected)) => {
            prop_assert!(
                expected.contains(error),
                "{} is none of {:?}: {}",
                error,
                expected,
                shown
            );
        }
        (Err(_), oracle::Verdict::Refused) => {}
        _ => prop_assert!(false, "{:?} but {:?}: {}", read, verdict, shown),
    }
    let is_error = top_level_error(body);
    if let oracle::Verdict::Refused = verdict {
        prop_assert!(!is_error, "{}", shown);
    }
    let error = ProviderError::read(body);
    prop_assert!(!is_error || error.is_some(), "{}", shown);
    Ok(())
}

/// The body after an edit, with what its other methods say checked.
fn applied(edit: &Edit, before: &str) -> Result<String, TestCaseError> {
    let after = edit.apply(before.as_bytes());
    prop_assert_eq!(edit.len_after(before.len()), after.len());
    let (len, start) = edit.prefix(before.as_bytes());
    let pieced = [&start, &before.as_bytes()[len..]].concat();
    prop_assert_eq!(&pieced, &after);
    Ok(String::from_utf8(after).unwrap())
}

/// A JSON object, member by member, which may have `model` and `models` anywhere.
#[derive(Debug, Clone)]
struct Listing {
    lead: String,
    members: Vec<Written>,
    /// What stands between the braces where there are no members.
    gap: String,
    tail: String,
    models: Option<String>,
}

/// A member and the white space around it.
#[derive(Debug, Clone)]
struct Written {
    before: String,
    key: String,
    colon: String,
    value: String,
    after: String,
}

impl Written {
    fn text(&self) -> String {
        let Self {
            before,
            key,
            colon,
            value,
            after,
        } = self;
        [before, key, colon, value, after]
            .map(String::as_str)
            .concat()
    }

    fn is(&self, name: &str) -> bool {
        serde_json::from_str::<String>(&self.key).is_ok_and(|key| key == name)
    }
}

impl Listing {
    fn text(&self) -> String {
        let members: Vec<_> = self.members.iter().map(Written::text).collect();
        let inside = if members.is_empty() {
            &self.gap
        } else {
            &members.join(",")
        };
        format!("{}{{{inside}}}{}", self.lead, self.tail)
    }

    /// The text as it must be afterwards, and what was added.
    fn without_models(&self, name: Option<&str>) -> String {
        let mut listing = self.clone();
        if let Some(at) = self.members.iter().position(|member| member.is("models")) {
            let gone = listing.members.remove(at);
            // The comma before it goes, with the white space on both sides of that. The first member
            // goes with the comma behind it, and all the white space up to there.
            match at.checked_sub(1) {
                Some(before) => listing.members[before].after = gone.after,
                None => listing.gap = gone.after,
            }
        }
        let value = name.map(|name| serde_json::to_string(name).unwrap());
        let model = listing.members.iter_mut().find(|member| member.is("model"));
        match (model, value) {
            (_, None) => listing.text(),
            (Some(model), Some(value)) => {
                let old: String = serde_json::from_str(&model.value).unwrap();
                if Some(old.as_str()) != name {
                    model.value = value;
                }
                listing.text()
            }
            (None, Some(value)) => {
                let comma = if listing.members.is_empty() { "" } else { "," };
                let added = format!("\"model\":{value}{comma}");
                let text = listing.text();
                let at = listing.lead.len() + 1;
                format!("{}{added}{}", &text[..at], &text[at..])
            }
        }
    }
}

/// A JSON object with one `model`, which is `model`; `head` and `tail` stand around it.
#[derive(Debug, Clone)]
struct Document {
    head: String,
    model: String,
    tail: String,
    stream: bool,
}

impl Document {
    fn text(&self) -> String {
        [self.head.as_str(), &self.model, &self.tail].concat()
    }
}

prop_compose! {
    fn document()(
        spaces in [space(), space(), space(), space(), space()],
        before in members(),
        key in select(&[r#""model""#, r#""mod\u0065l""#, r#""\u006D\u006fdel""#][..]),
        model in model_value(),
        after in members(),
        stream in stream_member(),
        stream_first in any::<bool>(),
    ) -> Document {
        let [s0, s1, s2, s3, s4] = spaces;
        let (first, last) = if stream_first { (stream.as_str(), "") } else { ("", stream.as_str()) };
        let before = joined(&[first, &before], |part| format!("{part},"));
        let after = joined(&[&after, last], |part| format!(",{part}"));
        Document {
            head: format!("{s0}{{{before}{s1}{key}{s2}:{s3}"),
            model,
            tail: format!("{s4}{after}}}{s0}"),
            stream: stream.ends_with(":true"),
        }
    }
}

prop_compose! {
    fn listing()(
        lead in space(),
        others in vec((other_key(), value()), 0..4),
        model in option((model_key(), model_value(), any::<Index>())),
        models in option((models_key(), models_value(), any::<Index>())),
        spaces in vec([space(), space(), space(), space()], 6),
        gap in space(),
        tail in space(),
    ) -> Listing {
        let mut members = others;
        for (key, value, at) in model.into_iter().chain(models.clone()) {
            members.insert(at.index(members.len() + 1), (key, value));
        }
        let members = members.into_iter().zip(spaces).map(|((key, value), [before, s1, s2, after])| {
            Written { before, key, colon: format!("{s1}:{s2}"), value, after }
        });
        Listing {
            lead,
            members: members.collect(),
            gap,
            tail,
            models: models.map(|(_, value, _)| value),
        }
    }
}

fn model_key() -> impl Strategy<Value = String> {
    select(&[r#""model""#, r#""mod\u0065l""#][..]).prop_map(str::to_owned)
}

fn models_key() -> impl Strategy<Value = String> {
    let keys = &[r#""models""#, r#""mod\u0065ls""#, r#""\u006D\u006fdels""#][..];
    select(keys).prop_map(str::to_owned)
}

/// Lists of names more often than not.
fn models_value() -> impl Strategy<Value = String> {
    let entry = prop_oneof![
        6 => model_value(),
        1 => string(),
        1 => value(),
    ];
    let list = (vec((space(), entry, space()), 0..6), space()).prop_map(|(entries, space)| {
        let entries = entries
            .into_iter()
            .map(|(s0, entry, s1)| format!("{s0}{entry}{s1}"));
        format!("[{}{space}]", entries.collect::<Vec<_>>().join(","))
    });
    prop_oneof![4 => list, 1 => value()]
}

fn joined(parts: &[&str], with_comma: impl Fn(&str) -> String) -> String {
    let present = parts.iter().filter(|part| !part.is_empty());
    present.map(|part| with_comma(part)).collect()
}

fn stream_member() -> impl Strategy<Value = String> {
    let values = select(&["true", "false", "null", "1", "\"true\"", "[true]"][..]);
    prop_oneof![
        Just(String::new()),
        values.prop_map(|value| format!("\"stream\":{value}")),
    ]
}

fn model_name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("gpt-4o".to_owned()),
        Just("qwen/\"plus\"\\\u{0}\n".to_owned()),
        any::<String>(),
    ]
}

/// A string as JSON may write it; always text, so without half of a surrogate pair.
fn model_value() -> impl Strategy<Value = String> {
    prop_oneof![
        select(
            &[
                r#""gpt-4o""#,
                r#""gpt\u002d4o""#,
                r#""\ud83D\ude00""#,
                r#""""#,
                r#""\/\"\\""#
            ][..]
        )
        .prop_map(str::to_owned),
        any::<String>().prop_map(|name| serde_json::to_string(&name).unwrap()),
    ]
}

/// Members with commas between them, none of which is read by the filter; or nothing.
fn members() -> impl Strategy<Value = String> {
    vec((other_key(), space(), value(), space()), 0..5).prop_map(|members| {
        let members = members.into_iter();
        let written = members.map(|(key, s0, value, s1)| format!("{s0}{key}{s1}:{s0}{value}{s1}"));
        written.collect::<Vec<_>>().join(",")
    })
}

/// A few keys of their own so that duplicates are common, near misses, and any text.
fn other_key() -> impl Strategy<Value = String> {
    let known = &[
        "a",
        "messages",
        "Model",
        "model ",
        "models_",
        r"mod\\u0065l",
        r"\ud800",
        "",
    ][..];
    prop_oneof![
        select(known).prop_map(|key| format!("\"{key}\"")),
        string().prop_map(|text| text.replacen('"', "\"_", 1)),
    ]
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => string(),
        2 => number(),
        1 => select(&["true", "false", "null"][..]).prop_map(str::to_owned),
        1 => nest(),
    ];
    leaf.prop_recursive(5, 32, 6, |inner| {
        let key = select(&[r#""model""#, r#""stream""#, r#""models""#, r#""k""#][..]);
        let item =
            (space(), inner.clone()).prop_map(|(space, value)| format!("{space}{value}{space}"));
        let member = (key, space(), inner)
            .prop_map(|(key, space, value)| format!("{space}{key}{space}:{value}"));
        prop_oneof![
            (vec(item, 0..6), space())
                .prop_map(|(items, space)| format!("[{}{space}]", items.join(","))),
            (vec(member, 0..6), space())
                .prop_map(|(members, space)| format!("{{{}{space}}}", members.join(","))),
        ]
    })
}

/// Arrays inside arrays, as deep as the levels around them (one and at most five) allow.
fn nest() -> impl Strategy<Value = String> {
    let deepest = MAX_DEPTH - 7;
    prop_oneof![Just(0), 0..deepest, Just(deepest)]
        .prop_map(|levels| format!("{}[]{}", "[".repeat(levels), "]".repeat(levels)))
}

fn number() -> impl Strategy<Value = String> {
    let special = &[
        "0",
        "-0",
        "1e400",
        "-1E+400",
        "12345678901234567890",
        "0.1e-7",
        "1.50",
        "0e0",
    ][..];
    prop_oneof![
        select(special).prop_map(str::to_owned),
        "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,4})?",
    ]
}

fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ -!#-\\[\\]-~]{0,20}",
        1 => "[^\\x00-\\x1f\"\\\\]{0,9}",
        1 => r#"\\["\\/bfnrt]"#,
        1 => "\\\\u[0-9a-fA-F]{4}",
    ];
    vec(piece, 0..5).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn space() -> impl Strategy<Value = String> {
    prop_oneof![2 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
}

/// Bytes of a string, the ones that matter to its end more often than not.
fn string_byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        20 => 0x20..0x7f_u8,
        1 => Just(b'\\'),
        1 => select(&b"\\\\\\\"u0n/\x1f\x7f"[..]),
    ]
}

const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "\"a\"",
    "\"model\"",
    "\"stream\"",
    "\"models\"",
    "\"model\":\"m\"",
    "\"a\":",
    "{}",
    "[]",
    "0",
    "1",
    "-",
    "+",
    ".",
    "e",
    "E",
    "12",
    "true",
    "false",
    "null",
    "nul",
    " ",
    "\n",
    "\u{b}",
    "\u{a0}",
    "\u{feff}",
    "\\u00e9",
    "é",
    "/",
    "#",
];

#[derive(Debug, Clone)]
enum Mutation {
    Flip(Index, u8),
    Truncate(Index),
    Insert(Index, &'static str),
    Remove(Index, usize),
    Repeat(Index, Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<Index>(), 1..=u8::MAX).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        any::<Index>().prop_map(Mutation::Truncate),
        (any::<Index>(), select(TOKENS)).prop_map(|(at, token)| Mutation::Insert(at, token)),
        (any::<Index>(), 1..4_usize).prop_map(|(at, len)| Mutation::Remove(at, len)),
        any::<(Index, Index)>().prop_map(|(from, to)| Mutation::Repeat(from, to)),
    ]
}

impl Mutation {
    fn make(&self, body: &mut Vec<u8>) {
        let place = |at: &Index, body: &[u8]| at.index(body.len() + 1);
        match self {
            Self::Flip(at, bits) => {
                let at = place(at, body);
                body.iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|byte| *byte ^= bits);
            }
            Self::Truncate(at) => body.truncate(place(at, body)),
            Self::Insert(at, token) => {
                let at = place(at, body);
                body.splice(at..at, token.bytes());
            }
            Self::Remove(at, len) => {
                let at = place(at, body);
                body.drain(at..body.len().min(at + len));
            }
            Self::Repeat(from, to) => {
                let (from, to) = (place(from, body), place(to, body));
                let part = body[from.min(to)..from.max(to)].to_vec();
                body.splice(to..to, part);
            }
        }
    }
}

/// Judges a body with `serde_json` alone.
mod oracle {
    use std::fmt;

    use ai_fallback::core::request::{BodyError, MAX_DEPTH};
    use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

    #[derive(Debug)]
    pub enum Verdict {
        Accepted {
            model: Option<String>,
        },
        /// JSON, but against these rules of the filter.
        Excepted(Vec<BodyError>),
        Refused,
    }

    pub fn judge(body: &[u8]) -> Verdict {
        let text = std::str::from_utf8(body).unwrap_or_default();
        // Keys as bytes may hold control characters, so they do not tell what is JSON.
        if serde_json::from_str::<IgnoredAny>(text).is_err() {
            return Verdict::Refused;
        }
        let Ok(Keys(keys)) = serde_json::from_str(text) else {
            return Verdict::Refused;
        };
        let mut broken = Vec::new();
        if depth(text) > MAX_DEPTH {
            broken.push(BodyError::TooDeep);
        }
        for name in ["model", "stream"] {
            if keys.iter().filter(|key| key.0 == name.as_bytes()).count() > 1 {
                broken.push(BodyError::Duplicate(name));
            }
        }
        match serde_json::from_str(text) {
            Ok(Name(model)) if broken.is_empty() => return Verdict::Accepted { model },
            Ok(_) => {}
            Err(_) => broken.push(BodyError::ModelNotAString),
        }
        Verdict::Excepted(broken)
    }

    /// The keys of an object, in their order.
    pub fn keys(text: &str) -> Vec<String> {
        let Keys(keys) = serde_json::from_str(text).unwrap();
        let keys = keys.iter().map(|Key(key)| String::from_utf8_lossy(key));
        keys.map(|key| key.into_owned()).collect()
    }

    /// The names in the value of a `models`, or what is wrong with it.
    pub fn models(value: &str, max: usize) -> Result<Vec<String>, BodyError> {
        let list = serde_json::from_str::<Vec<IgnoredAny>>(value);
        let len = list.map_err(|_| BodyError::ModelsNotAList)?.len();
        let mut names = Vec::new();
        // What comes before the first entry that is none is kept.
        let _ = serde_json::Deserializer::from_str(value).deserialize_seq(Names(&mut names));
        let good = names.iter().take_while(|name| !name.is_empty()).count();
        match good {
            _ if len == 0 => Err(BodyError::ModelsEmpty),
            _ if good == len && len <= max => Ok(names),
            _ if good >= max => Err(BodyError::ModelsTooMany { max }),
            _ => Err(BodyError::ModelsEntry),
        }
    }

    /// How many containers are open at once, in text that is known to be JSON.
    fn depth(text: &str) -> usize {
        let (mut depth, mut deepest) = (0_usize, 0);
        let (mut in_string, mut escaped) = (false, false);
        for byte in text.bytes() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        deepest
    }

    /// All keys of an object.
    struct Keys(Vec<Key>);

    /// The `model` of an object. Errors where it is no text.
    struct Name(Option<String>);

    /// The strings of an array, up to the first element that is none.
    struct Names<'a>(&'a mut Vec<String>);

    /// A key as bytes, since half of a surrogate pair is no text.
    struct Key(Vec<u8>);

    impl<'de> Deserialize<'de> for Keys {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(Keys(Vec::new()))
        }
    }

    impl<'de> Visitor<'de> for Keys {
        type Value = Self;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
            while let Some((key, IgnoredAny)) = map.next_entry()? {
                self.0.push(key);
            }
            Ok(self)
        }
    }

    impl<'de> Deserialize<'de> for Name {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(Name(None))
        }
    }

    impl<'de> Visitor<'de> for Name {
        type Value = Self;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object whose `model` is a string")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
            while let Some(Key(key)) = map.next_key()? {
                if key == b"model" {
                    self.0 = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(self)
        }
    }

    impl<'de> Visitor<'de> for Names<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of strings")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
            while let Some(name) = seq.next_element()? {
                self.0.push(name);
            }
            Ok(())
        }
    }

    impl<'de> Deserialize<'de> for Key {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_bytes(Key(Vec::new()))
        }
    }

    impl Visitor<'_> for Key {
        type Value = Self;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a key")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self, E> {
            Ok(Key(bytes.to_vec()))
        }
    }
}
