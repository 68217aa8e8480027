//! Reads [`Node`]s and keeps track of where they stand. A reading that fails is reported to
//! [`Problems`] and gives `None`, and the reader of the whole goes on with the next field: that is
//! how all errors come at once. It may put a default in the place of what could not be read, since
//! a configuration with a problem is never used.

use std::ops::RangeInclusive;

use super::error::{one_of, quoted};
use super::{ConfigError, Node};

/// The errors found so far.
#[derive(Default)]
pub(super) struct Problems(pub Vec<ConfigError>);

impl Problems {
    /// Adds an error. Always `None`, so that a reader can end with it.
    pub fn report<T>(&mut self, path: &str, problem: &str, got: &str, expected: &str) -> Option<T> {
        self.add(path, problem, got, expected);
        None
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    fn add(&mut self, path: &str, problem: &str, got: &str, expected: &str) {
        self.0.push(ConfigError::new(path, problem, got, expected));
    }
}

/// A value and its path.
pub(super) struct Item<'a> {
    pub node: &'a Node,
    pub path: String,
}

impl<'a> Item<'a> {
    /// The whole configuration.
    pub fn root(node: &'a Node) -> Self {
        Item {
            node,
            path: "$".to_owned(),
        }
    }

    /// Text that is not empty and has no control characters.
    pub fn text(&self, problems: &mut Problems, expected: &str) -> Option<&'a str> {
        let text = self.any_text(problems, expected)?;
        self.check_text(text, problems, expected)
    }

    /// The same for `text` that stands here, also as the name of a field.
    pub fn check_text<'t>(
        &self,
        text: &'t str,
        problems: &mut Problems,
        expected: &str,
    ) -> Option<&'t str> {
        if text.is_empty() {
            return problems.report(&self.path, "empty text", "\"\"", expected);
        }
        if text.chars().any(char::is_control) {
            return problems.report(&self.path, "control character", &quoted(text), expected);
        }
        Some(text)
    }

    /// Any text.
    pub fn any_text(&self, problems: &mut Problems, expected: &str) -> Option<&'a str> {
        match self.node {
            Node::String(text) => Some(text),
            _ => self.wrong_type(problems, expected),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self, problems: &mut Problems) -> Option<bool> {
        match self.node {
            Node::Bool(value) => Some(*value),
            _ => self.wrong_type(problems, "true or false"),
        }
    }

    /// A whole number within `range`.
    pub fn integer(&self, problems: &mut Problems, range: RangeInclusive<i32>) -> Option<i32> {
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        let Node::Number(number) = *self.node else {
            return self.wrong_type(problems, &expected);
        };
        if number.fract() != 0.0 {
            return problems.report(&self.path, "not an integer", &shown(number), &expected);
        }
        if number < f64::from(*range.start()) || number > f64::from(*range.end()) {
            return problems.report(&self.path, "out of range", &shown(number), &expected);
        }
        Some(number as i32)
    }

    /// One of a few words.
    pub fn word(&self, problems: &mut Problems, words: &[&'static str]) -> Option<&'static str> {
        let written = self.any_text(problems, &one_of(words, '"', ""))?;
        let found = words.iter().find(|word| **word == written).copied();
        found.or_else(|| {
            let expected = one_of(words, '"', written);
            problems.report(&self.path, "unknown value", &quoted(written), &expected)
        })
    }

    /// A list with at least one entry, each read by `read`. Those that could not be read are left
    /// out.
    pub fn list<T>(
        &self,
        problems: &mut Problems,
        expected: &str,
        mut read: impl FnMut(&Item<'a>, &mut Problems) -> Option<T>,
    ) -> Vec<T> {
        let items = self.items(problems, expected);
        let read = items.iter().filter_map(|item| read(item, problems));
        read.collect()
    }

    fn items(&self, problems: &mut Problems, expected: &str) -> Vec<Item<'a>> {
        let Node::List(nodes) = self.node else {
            self.wrong_type::<()>(problems, expected);
            return Vec::new();
        };
        if nodes.is_empty() {
            problems.report::<()>(&self.path, "empty list", "[]", expected);
        }
        let items = nodes.iter().enumerate().map(|(index, node)| Item {
            node,
            path: format!("{}[{index}]", self.path),
        });
        items.collect()
    }

    /// The entries of an object whose keys are the user's, in the order of the keys: a `Struct` has
    /// no order. Of a duplicate key the first entry is kept.
    pub fn entries(&self, problems: &mut Problems, expected: &str) -> Vec<(&'a str, Item<'a>)> {
        let Node::Object(entries) = self.node else {
            self.wrong_type::<()>(problems, expected);
            return Vec::new();
        };
        let mut items: Vec<(&str, Item<'a>)> = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let path = join(&self.path, key);
            match items.binary_search_by_key(&key.as_str(), |(key, _)| key) {
                Ok(_) => duplicate(problems, &path, key),
                Err(at) => items.insert(at, (key, Item { node, path })),
            }
        }
        items
    }

    /// The same, of an object with at least one entry.
    pub fn some_entries(
        &self,
        problems: &mut Problems,
        expected: &str,
    ) -> Vec<(&'a str, Item<'a>)> {
        if matches!(self.node, Node::Object(entries) if entries.is_empty()) {
            problems.report::<()>(&self.path, "empty object", "{}", expected);
        }
        self.entries(problems, expected)
    }

    /// An object whose keys are `known`.
    pub fn fields(
        &self,
        problems: &mut Problems,
        expected: &str,
        known: &'static [&'static str],
    ) -> Option<Fields<'a>> {
        let Node::Object(entries) = self.node else {
            return self.wrong_type(problems, expected);
        };
        for (index, (key, _)) in entries.iter().enumerate() {
            if entries.iter().take(index).any(|(other, _)| other == key) {
                duplicate(problems, &join(&self.path, key), key);
            }
        }
        for (key, _) in entries
            .iter()
            .filter(|(key, _)| !known.contains(&key.as_str()))
        {
            let path = join(&self.path, key);
            problems.report::<()>(
                &path,
                "unknown field",
                &quoted(key),
                &one_of(known, '`', key),
            );
        }
        Some(Fields {
            path: self.path.clone(),
            entries,
        })
    }

    /// The kind alone is shown: a value in the wrong place may be a credential.
    fn wrong_type<T>(&self, problems: &mut Problems, expected: &str) -> Option<T> {
        problems.report(&self.path, "wrong type", self.node.kind(), expected)
    }
}

/// The fields of one object.
pub(super) struct Fields<'a> {
    path: String,
    entries: &'a [(String, Node)],
}

impl<'a> Fields<'a> {
    /// The field, read by `read`; `None` where it is absent or could not be read.
    pub fn optional<T>(
        &self,
        problems: &mut Problems,
        name: &str,
        read: impl FnOnce(&Item<'a>, &mut Problems) -> Option<T>,
    ) -> Option<T> {
        read(&self.field(name)?, problems)
    }

    /// The field, a list whose entries are read by `read`; empty where it is absent.
    pub fn list<T>(
        &self,
        problems: &mut Problems,
        name: &str,
        expected: &str,
        read: impl FnMut(&Item<'a>, &mut Problems) -> Option<T>,
    ) -> Vec<T> {
        let item = self.field(name);
        item.map_or_else(Vec::new, |item| item.list(problems, expected, read))
    }

    /// The field, read by `read`; an error where it is absent.
    pub fn required<T>(
        &self,
        problems: &mut Problems,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Item<'a>, &mut Problems) -> Option<T>,
    ) -> Option<T> {
        match self.field(name) {
            Some(item) => read(&item, problems),
            None => {
                let path = join(&self.path, name);
                problems.report(&path, "required field is missing", "nothing", expected)
            }
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self, problems: &mut Problems, name: &str, default: bool) -> bool {
        self.optional(problems, name, Item::boolean)
            .unwrap_or(default)
    }

    /// One of a few words.
    pub fn word(
        &self,
        problems: &mut Problems,
        name: &str,
        words: &[&'static str],
    ) -> Option<&'static str> {
        self.optional(problems, name, |item, p| item.word(p, words))
    }

    /// A whole number within `range`, which holds nothing negative.
    pub fn count(
        &self,
        problems: &mut Problems,
        name: &str,
        range: RangeInclusive<i32>,
        default: u32,
    ) -> u32 {
        let number = self.optional(problems, name, |item, p| item.integer(p, range));
        number.map_or(default, i32::unsigned_abs)
    }

    /// A number of bytes that Envoy is to buffer, which it does up to `buffer_limit`.
    pub fn within_buffer(
        &self,
        problems: &mut Problems,
        name: &str,
        range: RangeInclusive<i32>,
        default: u32,
        buffer_limit: u32,
    ) -> u32 {
        let bytes = self.count(problems, name, range, default);
        if bytes > buffer_limit {
            let expected = format!(
                "at most `buffer_limit_bytes`, which is {buffer_limit}: raise it, and Envoy's own limit with it"
            );
            self.out_of_range(problems, name, bytes, &expected);
        }
        bytes
    }

    /// Whether the field is there.
    pub fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    /// Adds an error of a number that is right by itself, but not beside other fields.
    pub fn out_of_range(&self, problems: &mut Problems, name: &str, got: u32, expected: &str) {
        let path = join(&self.path, name);
        problems.report::<()>(&path, "out of range", &got.to_string(), expected);
    }

    fn field(&self, name: &str) -> Option<Item<'a>> {
        let (_, node) = self.entries.iter().find(|(key, _)| key == name)?;
        Some(Item {
            node,
            path: join(&self.path, name),
        })
    }
}

fn duplicate(problems: &mut Problems, path: &str, key: &str) {
    let got = format!("{} again", quoted(key));
    problems.report::<()>(path, "duplicate key", &got, "each key once");
}

fn join(path: &str, key: &str) -> String {
    let plain = !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    match (path, plain) {
        ("$", true) => key.to_owned(),
        (_, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{}]", quoted(key)),
    }
}

/// A number as it would be written: without a long tail of zeros.
fn shown(number: f64) -> String {
    const EXACT: f64 = (1_u64 << 53) as f64;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        return (number as i64).to_string();
    }
    // What no JSON number can be comes from a Struct.
    serde_json::Number::from_f64(number)
        .map_or_else(|| "no number".to_owned(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_no_plain_word_is_quoted_in_the_path() {
        assert_eq!(join("$", "services"), "services");
        assert_eq!(join("services", "openai"), "services.openai");
        assert_eq!(join("models", "gpt-4.1"), r#"models["gpt-4.1"]"#);
        assert_eq!(join("$", "a\nb"), r#"$["a\nb"]"#);
        assert_eq!(join("a", ""), r#"a[""]"#);
    }

    #[test]
    fn an_integer_may_be_written_as_a_double() {
        let mut problems = Problems::default();
        for (number, read) in [
            (3000.0, Some(3000)),
            (-0.0, Some(0)),
            (-5.0, Some(-5)),
            (1.5, None),
            (1e300, None),
        ] {
            let node = Node::Number(number);
            assert_eq!(
                Item::root(&node).integer(&mut problems, -10..=3000),
                read,
                "{number}"
            );
        }
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let node = Node::Number(number);
            assert_eq!(
                Item::root(&node).integer(&mut problems, -10..=3000),
                None,
                "{number}"
            );
        }
        assert_eq!(problems.0.len(), 5);
    }

    #[test]
    fn a_large_number_is_shown_short() {
        assert_eq!(
            [shown(3000.0), shown(-1.5), shown(1e300)],
            ["3000", "-1.5", "1e+300"]
        );
    }
}
