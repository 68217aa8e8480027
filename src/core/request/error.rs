//! What can be wrong with a request body, in words for the client.

use std::fmt;

use super::MAX_DEPTH;

/// Why a body cannot be read. Offsets are in bytes from its start. Never holds body content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// No bytes, or nothing but white space.
    Empty,
    /// The first byte that is not white space is not `{`. A byte order mark is not white space.
    NotAnObject,
    /// Not UTF-8 from `offset` on.
    NotUtf8 {
        /// Where the first broken character starts.
        offset: usize,
    },
    /// Not JSON.
    Syntax {
        /// Where the first byte that does not fit stands.
        offset: usize,
    },
    /// JSON so far, but it ends before the object does.
    Truncated,
    /// Objects and arrays nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// This member stands at the top level more than once.
    Duplicate(&'static str),
    /// `model` is there, but it is not a string, or not one that is text.
    ModelNotAString,
    /// `models` is there, but it is not an array.
    ModelsNotAList,
    /// `models` is an empty array.
    ModelsEmpty,
    /// `models` has more entries than a request may name.
    ModelsTooMany {
        /// The most entries that it may have.
        max: usize,
    },
    /// An entry of `models` is not a string, not one that is text, or an empty one.
    ModelsEntry,
    /// Trailers end the body, and no header has announced them.
    Trailers,
    /// The host did not give it.
    Lost,
}

impl BodyError {
    /// The member of the body that is at fault, where it is one.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::Duplicate(key) => Some(key),
            Self::ModelNotAString => Some("model"),
            Self::ModelsNotAList
            | Self::ModelsEmpty
            | Self::ModelsTooMany { .. }
            | Self::ModelsEntry => Some("models"),
            _ => None,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the request body is empty"),
            Self::NotAnObject => write!(f, "the request body is not a JSON object"),
            Self::NotUtf8 { offset } => {
                write!(f, "the request body is not valid UTF-8 at byte {offset}")
            }
            Self::Syntax { offset } => write!(
                f,
                "the request body is not valid JSON: unexpected character at byte {offset}"
            ),
            Self::Truncated => write!(
                f,
                "the request body is not valid JSON: it ends before the object does"
            ),
            Self::TooDeep => write!(
                f,
                "the request body is nested deeper than {MAX_DEPTH} levels"
            ),
            Self::Duplicate(key) => write!(
                f,
                "the request body holds `{key}` twice; which one counts is not defined"
            ),
            Self::ModelNotAString => write!(f, "`model` in the request body is not a string"),
            Self::ModelsNotAList => write!(f, "`models` in the request body is not an array"),
            Self::ModelsEmpty => write!(f, "`models` in the request body names no model"),
            Self::ModelsTooMany { max } => write!(
                f,
                "`models` in the request body names more than {max} models"
            ),
            Self::ModelsEntry => write!(
                f,
                "`models` in the request body holds something that is not the name of a model"
            ),
            Self::Trailers => write!(
                f,
                "the request ends with trailers, and has no header `trailer` that announces them"
            ),
            Self::Lost => write!(f, "the request body could not be read"),
        }
    }
}

impl std::error::Error for BodyError {}
