//! `on_status`: which statuses of an answer are failures.

use super::error::{one_of, quoted};
use super::node::Node;
use super::reader::{Item, Problems};

/// Sets that have a name.
const WORDS: [(&str, StatusSet); 2] = [
    ("any", StatusSet::ALL),
    ("availability", StatusSet::AVAILABILITY),
];

/// Refusals. Said by the gateway itself, each counts only where it is listed by its code.
const REFUSALS: [u16; 3] = [401, 403, 407];

/// A set of HTTP statuses from 400 to 599, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatusSet {
    client: u128,
    server: u128,
    /// Those of [`REFUSALS`] that are listed by their codes, in the bits of `client`.
    refusals: u128,
}

impl StatusSet {
    const CLASS: u128 = (1 << 100) - 1;
    /// `4xx` and `5xx`.
    pub const ALL: StatusSet = StatusSet {
        client: Self::CLASS,
        server: Self::CLASS,
        refusals: 0,
    };
    /// What says that a service cannot answer now: `408`, `425`, `429` and `5xx`.
    pub const AVAILABILITY: StatusSet = StatusSet {
        client: 1 << 8 | 1 << 25 | 1 << 29,
        server: Self::CLASS,
        refusals: 0,
    };

    /// Whether `status` is in the set.
    #[must_use]
    pub fn contains(self, status: u16) -> bool {
        let one = StatusSet::of(status);
        one.client & self.client != 0 || one.server & self.server != 0
    }

    /// Whether `status` is in the set where the gateway itself has said it: of refusals, not by a class or a word.
    #[must_use]
    pub fn contains_of_gateway(self, status: u16) -> bool {
        match REFUSALS.contains(&status) {
            true => StatusSet::of(status).client & self.refusals != 0,
            false => self.contains(status),
        }
    }

    /// The set of one status; empty where it is not from 400 to 599.
    fn of(status: u16) -> Self {
        match status {
            400..=499 => {
                let client = 1 << (status - 400);
                StatusSet {
                    client,
                    server: 0,
                    refusals: if REFUSALS.contains(&status) {
                        client
                    } else {
                        0
                    },
                }
            }
            500..=599 => StatusSet {
                server: 1 << (status - 500),
                ..StatusSet::default()
            },
            _ => StatusSet::default(),
        }
    }

    fn union(self, other: StatusSet) -> Self {
        StatusSet {
            client: self.client | other.client,
            server: self.server | other.server,
            refusals: self.refusals | other.refusals,
        }
    }

    /// A list, or one word.
    pub(super) fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        let expected = |written| word_or("a list of classes and codes", written);
        if let Node::String(text) = item.node {
            return read_word(text).or_else(|| {
                problems.report(&item.path, "unknown value", &quoted(text), &expected(text))
            });
        }
        let sets = item.list(problems, &expected(""), read_entry);
        Some(
            sets.into_iter()
                .fold(StatusSet::default(), StatusSet::union),
        )
    }
}

/// What may stand here: this, or a word.
fn word_or(other: &str, written: &str) -> String {
    format!(
        "{other}, or {}",
        one_of(&WORDS.map(|(word, _)| word), '"', written)
    )
}

fn read_word(text: &str) -> Option<StatusSet> {
    let found = WORDS.iter().find(|(word, _)| *word == text);
    found.map(|(_, set)| *set)
}

/// A class, a code, a code in quotes, or a word.
fn read_entry(item: &Item<'_>, problems: &mut Problems) -> Option<StatusSet> {
    if matches!(item.node, Node::Number(_)) {
        let status = item.integer(problems, 400..=599)?;
        return u16::try_from(status).ok().map(StatusSet::of);
    }
    let expected = |written| word_or("\"4xx\", \"5xx\", a code from 400 to 599", written);
    match item.any_text(problems, &expected(""))? {
        "4xx" => Some(StatusSet {
            client: StatusSet::CLASS,
            ..StatusSet::default()
        }),
        "5xx" => Some(StatusSet {
            server: StatusSet::CLASS,
            ..StatusSet::default()
        }),
        text => read_code(text).or_else(|| read_word(text)).or_else(|| {
            problems.report(&item.path, "not a status", &quoted(text), &expected(text))
        }),
    }
}

fn read_code(text: &str) -> Option<StatusSet> {
    let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    let set = StatusSet::of(text.parse().ok().filter(|_| digits)?);
    (set != StatusSet::default()).then_some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<StatusSet> {
        let node = Node::from_json(json.as_bytes()).unwrap();
        let mut problems = Problems::default();
        let set = StatusSet::read(&Item::root(&node), &mut problems);
        set.filter(|_| problems.count() == 0)
    }

    fn members(json: &str) -> Vec<u16> {
        let set = read(json).unwrap();
        (0..=u16::MAX)
            .filter(|status| set.contains(*status))
            .collect()
    }

    #[test]
    fn classes_and_codes_make_a_set() {
        assert_eq!(members(r#"["4xx"]"#), (400..500).collect::<Vec<_>>());
        assert_eq!(members(r#"["5xx", 503]"#), (500..600).collect::<Vec<_>>());
        assert_eq!(
            members(r#"[599, "429", 400, 429.0, 500]"#),
            [400, 429, 500, 599]
        );
        assert_eq!(read(r#"["4xx", "5xx"]"#), Some(StatusSet::ALL));
    }

    #[test]
    fn a_word_stands_for_a_set() {
        assert_eq!(read(r#""any""#), Some(StatusSet::ALL));
        let expected: Vec<u16> = [408, 425, 429].into_iter().chain(500..600).collect();
        assert_eq!(members(r#""availability""#), expected);
        assert_eq!(members(r#"["availability"]"#), expected);
        assert_eq!(members(r#"["availability", 401, 429]"#)[..2], [401, 408]);
        assert_eq!(read(r#"["any", 404]"#), Some(StatusSet::ALL));
    }

    #[test]
    fn a_refusal_of_the_gateway_is_in_the_set_by_its_code_alone() {
        for json in [r#""any""#, r#"["4xx", "5xx"]"#, r#"["availability"]"#] {
            let set = read(json).unwrap();
            assert!(
                REFUSALS
                    .iter()
                    .all(|status| !set.contains_of_gateway(*status)),
                "{json}"
            );
            assert!(
                set.contains_of_gateway(429) && set.contains_of_gateway(503),
                "{json}"
            );
        }
        let listed = read(r#"["4xx", 401, "407"]"#).unwrap();
        let of_gateway = REFUSALS.map(|status| listed.contains_of_gateway(status));
        assert_eq!(of_gateway, [true, false, true]);
    }

    #[test]
    fn what_is_no_failure_is_refused() {
        for json in [
            "[200]",
            "[399]",
            "[600]",
            "[1000]",
            "[\"2xx\"]",
            "[\"4XX\"]",
            "[\"+40\"]",
            "[\"200\"]",
            "[\"0429\"]",
            "[true]",
            "[]",
            "503",
            "\"5xx\"",
            "\"Any\"",
            "[\"Any\"]",
            "{\"any\": true}",
        ] {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
