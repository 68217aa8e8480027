//! What a request body asks for.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

const KNOWN: [&str; 6] = [
    "model",
    "stream",
    "input",
    "documents",
    "stream_options",
    "encoding_format",
];

/// The fields that the mock looks at. The others may hold what `serde_json` would refuse
/// (`1e400`, 10,000 levels): they are skipped, as a lenient model service would do.
#[derive(Default)]
pub struct Asked(Map<String, Value>);

impl Asked {
    /// A body that is no JSON object asks for nothing.
    pub fn parse(body: &[u8]) -> Asked {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// The model name; empty where there is none.
    pub fn model(&self) -> &str {
        self.get("model").as_str().unwrap_or_default()
    }

    pub fn stream(&self) -> bool {
        self.get("stream") == true
    }

    pub fn base64(&self) -> bool {
        self.get("encoding_format") == "base64"
    }

    /// OpenAI's `stream_options.include_usage`.
    pub fn usage(&self) -> bool {
        self.get("stream_options")["include_usage"] == true
    }

    /// How many items a list holds; anything else is one item.
    pub fn count(&self, name: &str) -> usize {
        match self.get(name) {
            // A list of numbers is one text, as tokens.
            Value::Array(list) if !list.iter().any(Value::is_number) => list.len(),
            _ => 1,
        }
    }

    fn get(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }
}

impl<'de> Deserialize<'de> for Asked {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Asked, D::Error> {
        source.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Asked;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Asked, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = source.next_key::<String>()? {
            if KNOWN.contains(&name.as_str()) {
                fields.insert(name, source.next_value()?);
            } else {
                source.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Asked(fields))
    }
}
