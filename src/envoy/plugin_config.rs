//! The bytes of the plugin configuration. Envoy hands over a `StringValue` as its text, and a
//! `Struct` (YAML in Envoy's configuration, or Istio's `pluginConfig`) as binary protobuf.

use prost::Message;
use prost_types::{Struct, Value, value::Kind};

use crate::core::config::{ConfigError, Node};

/// The tag of `fields`, the only field of a `Struct`. It is a line feed, too.
const STRUCT_TAG: u8 = 0x0a;
/// The tag of the value within each entry of `fields`. As a byte of text it is a control character,
/// which JSON does not allow.
const VALUE_TAG: u8 = 0x12;

/// Reads the plugin configuration from JSON text or from a binary `google.protobuf.Struct`. Nothing
/// is an empty object.
///
/// # Errors
/// Bytes that are neither, or values that are nested about 30 deep (a `Struct`) or 128 deep (JSON).
pub fn read(bytes: &[u8]) -> Result<Node, ConfigError> {
    if bytes.trim_ascii().is_empty() {
        return Ok(Node::Object(Vec::new()));
    }
    if bytes.starts_with(&[STRUCT_TAG]) && bytes.contains(&VALUE_TAG) {
        return read_struct(bytes);
    }
    Node::from_json(bytes)
}

fn read_struct(bytes: &[u8]) -> Result<Node, ConfigError> {
    match Struct::decode(bytes) {
        Ok(object) => Ok(from_struct(object)),
        Err(error) => {
            let expected = "a google.protobuf.Struct, or JSON text";
            Err(ConfigError::new(
                "$",
                "not a valid Struct",
                error.to_string(),
                expected,
            ))
        }
    }
}

/// Calls itself for nested values; the decoder has bounded the depth.
fn from_struct(object: Struct) -> Node {
    Node::Object(
        object
            .fields
            .into_iter()
            .map(|(key, value)| (key, from_value(value)))
            .collect(),
    )
}

fn from_value(value: Value) -> Node {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Node::Null,
        Some(Kind::BoolValue(value)) => Node::Bool(value),
        Some(Kind::NumberValue(value)) => Node::Number(value),
        Some(Kind::StringValue(value)) => Node::String(value),
        Some(Kind::ListValue(list)) => {
            Node::List(list.values.into_iter().map(from_value).collect())
        }
        Some(Kind::StructValue(object)) => from_struct(object),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config::Config;

    fn value(kind: Kind) -> Value {
        Value { kind: Some(kind) }
    }

    fn text(value: &str) -> Value {
        self::value(Kind::StringValue(value.to_owned()))
    }

    fn object<const N: usize>(fields: [(&str, Value); N]) -> Struct {
        Struct {
            fields: fields
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        }
    }

    #[test]
    fn json_and_struct_mean_the_same() {
        let list = prost_types::ListValue {
            values: vec![value(Kind::NullValue(0)), value(Kind::BoolValue(true))],
        };
        let inner = object([("x", text("y"))]);
        let written = object([
            ("a", value(Kind::NumberValue(3000.0))),
            ("b", value(Kind::ListValue(list))),
            ("c", value(Kind::StructValue(inner))),
        ]);
        let json = br#"{"a": 3000, "b": [null, true], "c": {"x": "y"}}"#;
        assert_eq!(read(&written.encode_to_vec()), read(json));
    }

    fn to_struct(node: &Node) -> Struct {
        let Node::Object(entries) = node else {
            panic!("not an object")
        };
        Struct {
            fields: entries
                .iter()
                .map(|(key, node)| (key.clone(), to_value(node)))
                .collect(),
        }
    }

    fn to_value(node: &Node) -> Value {
        value(match node {
            Node::Null => Kind::NullValue(0),
            Node::Bool(value) => Kind::BoolValue(*value),
            Node::Number(value) => Kind::NumberValue(*value),
            Node::String(value) => Kind::StringValue(value.clone()),
            Node::List(nodes) => Kind::ListValue(prost_types::ListValue {
                values: nodes.iter().map(to_value).collect(),
            }),
            Node::Object(_) => Kind::StructValue(to_struct(node)),
        })
    }

    fn config(bytes: &[u8]) -> Result<Config, Vec<ConfigError>> {
        Config::parse(&read(bytes).unwrap(), &|name| {
            (name == "TEAM").then(|| "blue".to_owned())
        })
    }

    #[test]
    fn a_whole_configuration_is_the_same_in_both_forms() {
        let json = br#"{
            "dispatch": "router", "max_body_bytes": 2048,
            "services": {
                "openai": {"cluster": "openai", "authority": "api.openai.com", "path": "/p/{model}",
                    "headers": {"x-team": "${TEAM}", "A": "1"}, "credentials": "client", "models": {"a": "b", "c": "d"}},
                "local": {"cluster": "local"}
            },
            "model_apis": [{
                "name": "chat",
                "match": {"paths": ["/v1/*", "*/x", "/y"], "models": ["gpt-*", "o3"], "headers": {"x-b": "1", "x-a": "2"}},
                "primary": {"service": "openai", "model": "pass-through"},
                "fallback": {
                    "services": [{"service": "openai", "model": "m", "priority": -1}, {"service": "local"}],
                    "only_backend_errors": true, "on_status": ["4xx", 503, "500"],
                    "first_packet_timeout_ms": 3000, "request_timeout_ms": 0, "total_timeout_ms": 9000
                }
            }, {"name": "rest"}]
        }"#;
        let from_json = config(json);
        assert!(from_json.is_ok(), "{from_json:?}");
        let bytes = to_struct(&read(json).unwrap()).encode_to_vec();
        assert_eq!(config(&bytes), from_json);
        // A map of a message has no order: the last entry first.
        let whole = to_struct(&read(json).unwrap());
        let entries = whole.fields.into_iter().rev();
        let reversed = entries.flat_map(|entry| {
            Struct {
                fields: [entry].into(),
            }
            .encode_to_vec()
        });
        assert_eq!(config(&reversed.collect::<Vec<u8>>()), from_json);
    }

    #[test]
    fn mistakes_are_the_same_in_both_forms() {
        let json = br#"{"a": 1, "dispatch": null, "model_apis": [7], "services": {"x": {"cluster": 1.5}}}"#;
        let bytes = to_struct(&read(json).unwrap()).encode_to_vec();
        assert_eq!(config(json).unwrap_err().len(), 4);
        assert_eq!(config(&bytes), config(json));
    }

    #[test]
    fn json_may_start_with_line_feeds() {
        let expected = Node::Object(vec![("a".to_owned(), Node::Number(1.0))]);
        for json in ["{\"a\":1}", "\n{\"a\":1}\n", "\n\n \t\r\n{\"a\":1}"] {
            assert_eq!(read(json.as_bytes()), Ok(expected.clone()), "{json:?}");
        }
    }

    /// The second byte of a Struct is a length, and any length may be: one of them is `{`, others
    /// are white space.
    #[test]
    fn a_struct_of_any_length_is_no_json() {
        let mut second_bytes = Vec::new();
        for length in 0..150 {
            let long = "x".repeat(length);
            let bytes = object([("k", text(&long))]).encode_to_vec();
            second_bytes.push(bytes[1]);
            assert_eq!(
                read(&bytes),
                Ok(Node::Object(vec![("k".to_owned(), Node::String(long))])),
                "{length}"
            );
        }
        for byte in b"\n\r {[\"" {
            assert!(second_bytes.contains(byte), "{byte}");
        }
    }

    #[test]
    fn nothing_is_an_empty_object() {
        for bytes in [b"".as_slice(), b" \n\t", &Struct::default().encode_to_vec()] {
            assert_eq!(read(bytes), Ok(Node::Object(Vec::new())));
        }
    }

    #[test]
    fn what_is_neither_is_one_error_on_one_line() {
        let whole = object([("key", text("value"))]).encode_to_vec();
        let cut = &whole[..whole.len() - 1];
        let not_utf8 = object([("key", text("v"))])
            .encode_to_vec()
            .iter()
            .map(|b| b | ((*b == b'v') as u8) << 7)
            .collect::<Vec<_>>();
        let mut deep = text("x");
        for _ in 0..1_000 {
            deep = value(Kind::ListValue(prost_types::ListValue {
                values: vec![deep],
            }));
        }
        let deep = object([("k", deep)]).encode_to_vec();
        for bytes in [
            cut,
            &not_utf8,
            &deep,
            b"\n{\"a\":",
            b"{",
            b"dispatch: callout",
            b"\xff\xfe",
            b"\0",
            b"\n\x12",
        ] {
            let line = read(bytes).unwrap_err().to_string();
            assert!(
                line.starts_with("config: $: not ") && !line.contains('\n'),
                "{line}"
            );
        }
    }
}
