//! `on_errors` and `except_errors`: errors of services, by code, type or kind.

use super::pattern::Pattern;
use super::reader::{Fields, Problems};
use crate::core::provider_error::{ErrorKind, ProviderError};

/// A set of errors. Empty: none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ErrorSet {
    kinds: Vec<ErrorKind>,
    /// Of codes and types, as the service writes them.
    names: Vec<Pattern>,
}

impl ErrorSet {
    /// Whether no error is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.names.is_empty()
    }

    /// Whether `error` is in the set.
    #[must_use]
    pub fn contains(&self, error: &ProviderError) -> bool {
        let of_kind = error.kind.is_some_and(|kind| self.kinds.contains(&kind));
        of_kind || self.has_name(&error.code) || self.has_name(&error.kind_name)
    }

    fn has_name(&self, name: &Option<String>) -> bool {
        let name = name.as_deref().map(str::as_bytes);
        name.is_some_and(|name| self.names.iter().any(|pattern| pattern.matches(name)))
    }

    /// A name that is not one of a kind is a pattern of codes and types.
    pub(super) fn read(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> Self {
        let expected = "a list of kinds, codes and types of errors, at least one";
        let patterns = fields.list(problems, name, expected, Pattern::read);
        let mut set = ErrorSet::default();
        for pattern in patterns {
            match ErrorKind::of_name(pattern.text()) {
                Some(kind) => set.kinds.push(kind),
                None => set.names.push(pattern),
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config::Node;
    use crate::core::config::reader::Item;

    fn set(json: &str) -> ErrorSet {
        let node = Node::from_json(format!(r#"{{"a": {json}}}"#).as_bytes()).unwrap();
        let mut problems = Problems::default();
        let fields = Item::root(&node).fields(&mut problems, "", &["a"]).unwrap();
        ErrorSet::read(&fields, "a", &mut problems)
    }

    fn error(code: &str, kind_name: &str, kind: Option<ErrorKind>) -> ProviderError {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        ProviderError {
            code: text(code),
            kind_name: text(kind_name),
            kind,
        }
    }

    #[test]
    fn an_error_is_found_by_its_kind_its_code_or_its_type() {
        let set = set(r#"["quota", "bad_*", "overloaded_error"]"#);
        for (error, found) in [
            (error("", "", Some(ErrorKind::Quota)), true),
            (error("x", "y", Some(ErrorKind::RateLimit)), false),
            (error("bad_key", "", None), true),
            (error("", "bad_key", None), true),
            (error("Bad_key", "", None), false),
            (error("529", "overloaded_error", None), true),
            (error("overloaded_error_2", "", None), false),
            (error("", "", None), false),
        ] {
            assert_eq!(set.contains(&error), found, "{error:?}");
        }
    }

    #[test]
    fn the_name_of_a_kind_is_no_pattern() {
        assert!(!set(r#"["quota"]"#).contains(&error("quota", "", None)));
    }

    #[test]
    fn the_empty_set_holds_no_error() {
        let none = ErrorSet::default();
        assert!(none.is_empty() && !set(r#"["quota"]"#).is_empty() && !set(r#"["a"]"#).is_empty());
        assert!(!none.contains(&error("a", "b", Some(ErrorKind::Quota))));
    }
}
