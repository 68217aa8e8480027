//! `*` patterns of paths and model names.

use memchr::memmem;

use super::error::quoted;
use super::reader::{Item, Problems};

/// A text in which each `*` stands for any run of characters, also an empty one. Case matters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    text: String,
    shape: Shape,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    Exact,
    /// What stands before the first `*`, between them, and after the last one.
    Wild {
        prefix: String,
        middle: Vec<String>,
        suffix: String,
    },
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// An empty text, or one with control characters: what was expected instead.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("at least one character");
        }
        if text.chars().any(char::is_control) {
            return Err("text without control characters");
        }
        Ok(Pattern {
            text: text.to_owned(),
            shape: shape(text),
        })
    }

    pub(super) fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        let text = item.any_text(problems, "a name, with `*` for any run of characters")?;
        match Pattern::parse(text) {
            Ok(pattern) => Some(pattern),
            Err(expected) => problems.report(&item.path, "bad pattern", &quoted(text), expected),
        }
    }

    /// What was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The text, where it holds no `*`: the only text that matches.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        (self.shape == Shape::Exact).then_some(&self.text)
    }

    /// Whether all of `text` matches. It takes time in proportion to the length of `text`, whatever
    /// the pattern.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        match &self.shape {
            Shape::Exact => self.text.as_bytes() == text,
            Shape::Wild {
                prefix,
                middle,
                suffix,
            } => {
                let rest = text.strip_prefix(prefix.as_bytes());
                let rest = rest.and_then(|rest| rest.strip_suffix(suffix.as_bytes()));
                rest.is_some_and(|rest| holds_in_order(rest, middle))
            }
        }
    }
}

fn shape(text: &str) -> Shape {
    let Some((prefix, rest)) = text.split_once('*') else {
        return Shape::Exact;
    };
    let (middle, suffix) = rest.rsplit_once('*').unwrap_or(("", rest));
    let middle = middle
        .split('*')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    Shape::Wild {
        prefix: prefix.to_owned(),
        middle,
        suffix: suffix.to_owned(),
    }
}

/// Taking the first place where each part is found never rules out a later part, so nothing is
/// tried twice.
fn holds_in_order(mut text: &[u8], parts: &[String]) -> bool {
    for part in parts {
        let after = memmem::find(text, part.as_bytes()).and_then(|at| text.get(at + part.len()..));
        match after {
            Some(after) => text = after,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The meaning of a pattern, word for word: a `*` is nothing, or one character and a `*`.
    fn oracle(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', pattern)), None) => oracle(pattern, text),
            (Some((b'*', rest)), Some((_, text_rest))) => {
                oracle(rest, text) || oracle(pattern, text_rest)
            }
            (Some((a, pattern)), Some((b, text))) => a == b && oracle(pattern, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_the_oracle_matches(pattern in "[ab*]{1,8}", text in "[ab]{0,10}") {
            let matches = Pattern::parse(&pattern).unwrap().matches(text.as_bytes());
            prop_assert_eq!(matches, oracle(pattern.as_bytes(), text.as_bytes()));
        }
    }

    #[test]
    fn prefix_and_suffix_may_not_overlap() {
        let pattern = Pattern::parse("/v1/*/v1/").unwrap();
        assert!(!pattern.matches(b"/v1/"));
        assert!(pattern.matches(b"/v1//v1/"));
    }

    #[test]
    fn any_bytes_can_be_matched() {
        assert!(Pattern::parse("*/x").unwrap().matches(b"/\xff\x00/x"));
        assert!(
            Pattern::parse("a*é*é")
                .unwrap()
                .matches("a\u{1F600}éé".as_bytes())
        );
        assert!(!Pattern::parse("*é*é").unwrap().matches("é".as_bytes()));
    }

    #[test]
    fn many_stars_against_a_long_text_end_at_once() {
        let pattern = Pattern::parse(&"a*".repeat(2_000)).unwrap();
        assert!(!pattern.matches("b".repeat(1_000_000).as_bytes()));
        let pattern = Pattern::parse(&format!("*{}b", "a*".repeat(1_000))).unwrap();
        assert!(!pattern.matches("a".repeat(1_000_000).as_bytes()));
    }

    #[test]
    fn an_exact_pattern_says_so() {
        assert_eq!(Pattern::parse("gpt-4o").unwrap().exact(), Some("gpt-4o"));
        assert_eq!(Pattern::parse("gpt-*").unwrap().exact(), None);
    }

    #[test]
    fn bad_patterns_are_refused() {
        assert!(Pattern::parse("").is_err());
        assert!(Pattern::parse("a\nb").is_err());
    }
}
