//! `on_status`: which statuses of an answer are failures.

use super::error::quoted;
use super::node::Node;
use super::reader::{Item, Problems};

const EXPECTED: &str = "\"4xx\", \"5xx\", or a code from 400 to 599";

/// A set of HTTP statuses from 400 to 599, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatusSet {
    client: u128,
    server: u128,
}

impl StatusSet {
    const CLASS: u128 = (1 << 100) - 1;
    /// `4xx` and `5xx`.
    pub const ALL: StatusSet = StatusSet {
        client: Self::CLASS,
        server: Self::CLASS,
    };

    /// Whether `status` is in the set.
    #[must_use]
    pub fn contains(self, status: u16) -> bool {
        let one = StatusSet::of(status);
        one.client & self.client != 0 || one.server & self.server != 0
    }

    /// The set of one status; empty where it is not from 400 to 599.
    fn of(status: u16) -> Self {
        match status {
            400..=499 => StatusSet {
                client: 1 << (status - 400),
                server: 0,
            },
            500..=599 => StatusSet {
                client: 0,
                server: 1 << (status - 500),
            },
            _ => StatusSet::default(),
        }
    }

    fn union(self, other: StatusSet) -> Self {
        StatusSet {
            client: self.client | other.client,
            server: self.server | other.server,
        }
    }

    pub(super) fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        let sets = item.list(
            problems,
            "a list of classes and codes, at least one",
            read_entry,
        )?;
        Some(
            sets.into_iter()
                .fold(StatusSet::default(), StatusSet::union),
        )
    }
}

/// A class, a code, or a code in quotes.
fn read_entry(item: &Item<'_>, problems: &mut Problems) -> Option<StatusSet> {
    if matches!(item.node, Node::Number(_)) {
        let status = item.integer(problems, 400..=599)?;
        return u16::try_from(status).ok().map(StatusSet::of);
    }
    match item.any_text(problems, EXPECTED)? {
        "4xx" => Some(StatusSet {
            client: StatusSet::CLASS,
            server: 0,
        }),
        "5xx" => Some(StatusSet {
            client: 0,
            server: StatusSet::CLASS,
        }),
        text => read_code(text)
            .or_else(|| problems.report(&item.path, "not a status", quoted(text), EXPECTED)),
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
        StatusSet::read(&Item::root(&node), &mut Problems::default())
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
        ] {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
