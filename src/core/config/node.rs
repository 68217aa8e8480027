//! What the user wrote, before anything is checked.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::ConfigError;

/// One value of the configuration as it was written. An object keeps the order of its keys and
/// every duplicate key, so that a duplicate can be reported instead of being dropped.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// `null`, or nothing at all.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any number. A `google.protobuf.Struct` knows doubles only, so JSON text is read in the same
    /// way: `3000` and `3000.0` are the same number.
    Number(f64),
    /// Text.
    String(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values.
    Object(Vec<(String, Node)>),
}

impl Node {
    /// Reads JSON text.
    ///
    /// # Errors
    /// Text that is not one JSON value, or is nested more than 128 deep.
    pub fn from_json(text: &[u8]) -> Result<Node, ConfigError> {
        serde_json::from_slice(text).map_err(|error| {
            ConfigError::new("$", "not valid JSON", error.to_string(), "a JSON object")
        })
    }

    /// A number that is the same for the same configuration, whatever the order of its keys, which a
    /// `google.protobuf.Struct` does not keep. Two configurations rarely have the same.
    #[must_use]
    pub fn version(&self) -> u32 {
        match self {
            Node::Null => 1,
            Node::Bool(value) => 2 + u32::from(*value),
            Node::Number(value) => hash(4, &value.to_le_bytes()),
            Node::String(text) => hash(5, text.as_bytes()),
            Node::List(items) => items.iter().fold(6, |version, item| {
                hash(version, &item.version().to_le_bytes())
            }),
            Node::Object(entries) => entries
                .iter()
                .map(|(key, value)| hash(value.version(), key.as_bytes()))
                .fold(7, u32::wrapping_add),
        }
    }

    /// The kind of value, with its article: `a list`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Node::Null => "null",
            Node::Bool(_) => "a boolean",
            Node::Number(_) => "a number",
            Node::String(_) => "a string",
            Node::List(_) => "a list",
            Node::Object(_) => "an object",
        }
    }
}

/// FNV-1a with a final mix, since the versions of the members of an object are added up.
fn hash(seed: u32, bytes: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = bytes.iter().fold(seed ^ 0x811c_9dc5, step);
    (hash ^ (hash >> 15)).wrapping_mul(0x85eb_ca6b)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

/// Builds a [`Node`]. It calls itself for nested values; `serde_json` bounds the depth.
struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some((Key(key), node)) = object.next_entry()? {
            entries.push((key, node));
        }
        Ok(Node::Object(entries))
    }
}

/// A key of an object. The reader of a `String` tells of a number that stands in its place, and what
/// prints a float would add 20 kB to the Wasm file.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(Key(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_duplicate_keys_are_kept() {
        let node = Node::from_json(br#"{"b": 1, "a": [null, true, "x"], "b": -2.5}"#).unwrap();
        let list = Node::List(vec![Node::Null, Node::Bool(true), Node::String("x".into())]);
        let entries = [
            ("b", Node::Number(1.0)),
            ("a", list),
            ("b", Node::Number(-2.5)),
        ];
        assert_eq!(
            node,
            Node::Object(entries.map(|(key, value)| (key.to_owned(), value)).to_vec())
        );
    }

    #[test]
    fn an_escaped_string_is_unescaped() {
        assert_eq!(
            Node::from_json(br#""\u0061\n""#).unwrap(),
            Node::String("a\n".into())
        );
    }

    #[test]
    fn what_is_not_json_is_one_error() {
        let deep = "[".repeat(10_000);
        for text in [
            "",
            "{",
            "{\"a\":1,}",
            "{} {}",
            "dispatch: callout",
            "\"\\ud800\"",
            deep.as_str(),
        ] {
            let line = Node::from_json(text.as_bytes()).unwrap_err().to_string();
            assert!(
                line.starts_with("config: $: not valid JSON (got "),
                "{line}"
            );
            assert!(line.ends_with("; expected a JSON object)"), "{line}");
        }
        assert!(Node::from_json(b"\"\xff\"").is_err());
    }
}
