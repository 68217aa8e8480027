//! One thing that is wrong in the configuration, as the user reads it.

use std::fmt;

/// Names listed in one message before the rest is only counted.
const LISTED_NAMES: usize = 20;
/// Characters of the user's text repeated in a message.
const SHOWN_CHARS: usize = 60;

/// One thing that is wrong. Its `Display` is one line: `config: PATH: what is wrong (got X;
/// expected Y)`. The value of a header is never part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    problem: String,
    got: String,
    expected: String,
}

impl ConfigError {
    /// `path` is like `services.openai.cluster`, or `$` for the whole configuration. No part may
    /// hold a line break.
    pub fn new(
        path: impl Into<String>,
        problem: impl Into<String>,
        got: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        ConfigError {
            path: path.into(),
            problem: problem.into(),
            got: got.into(),
            expected: expected.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConfigError {
            path,
            problem,
            got,
            expected,
        } = self;
        write!(
            f,
            "config: {path}: {problem} (got {got}; expected {expected})"
        )
    }
}

impl std::error::Error for ConfigError {}

/// Text in quotes, on one line and not too long.
pub(super) fn quoted(text: &str) -> String {
    match text
        .char_indices()
        .nth(SHOWN_CHARS)
        .and_then(|(end, _)| text.split_at_checked(end))
    {
        Some((start, _)) => format!("{start:?}..."),
        None => format!("{text:?}"),
    }
}

/// `one of "a", "b"; did you mean "a"?`: the names that may stand here, each between `quote`, and
/// the one that is closest to what was written.
pub(super) fn one_of(names: &[&str], quote: char, written: &str) -> String {
    let listed: Vec<String> = names
        .iter()
        .take(LISTED_NAMES)
        .map(|name| format!("{quote}{name}{quote}"))
        .collect();
    let mut text = if names.len() > 1 {
        "one of ".to_owned()
    } else {
        String::new()
    };
    text.push_str(&listed.join(", "));
    if names.len() > LISTED_NAMES {
        text.push_str(&format!(" or {} more", names.len() - LISTED_NAMES));
    }
    if let Some(name) = nearest(names, written) {
        text.push_str(&format!("; did you mean {quote}{name}{quote}?"));
    }
    text
}

/// The name that was probably meant: at most a third of its letters differ.
fn nearest<'a>(names: &[&'a str], written: &str) -> Option<&'a str> {
    let written = plain(written);
    let close = names.iter().filter_map(|name| {
        let limit = (name.chars().count() / 3).max(1);
        let lengths_fit = name.len().abs_diff(written.len()) <= limit;
        let distance = if lengths_fit {
            distance(&plain(name), &written)
        } else {
            usize::MAX
        };
        (distance <= limit).then_some((distance, *name))
    });
    close.min().map(|(_, name)| name)
}

/// Case and the choice of separator are not what makes two names different.
fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace(['-', ' '], "_")
}

/// How many letters must be changed, added or removed to get from `a` to `b`; letters in another
/// order count as one.
fn distance(a: &str, b: &str) -> usize {
    if same_letters(a, b) {
        return usize::from(a != b);
    }
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (above, letter) in a.chars().enumerate() {
        let mut diagonal = above;
        let mut left = above + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(b.chars()) {
            let changed = diagonal + usize::from(letter != other);
            diagonal = *cell;
            left = changed.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = above + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

fn same_letters(a: &str, b: &str) -> bool {
    let count = |text: &str, letter| text.chars().filter(|other| *other == letter).count();
    a.len() == b.len() && a.chars().all(|letter| count(a, letter) == count(b, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_and_stays_on_one_line() {
        assert_eq!(quoted("a\nb\"c"), r#""a\nb\"c""#);
        assert_eq!(quoted(&"é".repeat(60)), format!("\"{}\"", "é".repeat(60)));
        assert_eq!(
            quoted(&"é".repeat(61)),
            format!("\"{}\"...", "é".repeat(60))
        );
    }

    #[test]
    fn distance_counts_single_edits() {
        let cases = [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("qwne", "qwen", 1),
        ];
        for (a, b, edits) in cases {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        let names = ["services", "model_apis", "dispatch"];
        assert_eq!(nearest(&names, "servics"), Some("services"));
        assert_eq!(nearest(&names, "Model-APIs"), Some("model_apis"));
        assert_eq!(nearest(&names, "timeout"), None);
        assert_eq!(nearest(&names, &"services".repeat(1000)), None);
    }

    #[test]
    fn a_long_list_of_names_is_cut() {
        let names = ["a1"; LISTED_NAMES + 2];
        let text = one_of(&names, '`', "zz");
        assert_eq!(text.matches("`a1`").count(), LISTED_NAMES);
        assert!(text.ends_with(", `a1` or 2 more"), "{text}");
        assert_eq!(one_of(&["a1"], '"', "zz"), "\"a1\"");
    }
}
