//! The trail of attempts, as `x-ai-fallback-attempts` shows it: `openai;503;12ms, qwen;200;840ms`.

use std::fmt::Write as _;
use std::time::Duration;

use super::outcome::Outcome;
use super::plan::Step;

const SEPARATOR: &str = ", ";

/// The attempts that have ended, in order.
///
/// It is kept as text, since that is how it passes from filter to filter and to the client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail(String);

impl Trail {
    /// A trail that was written down before.
    #[must_use]
    pub fn read(text: String) -> Self {
        Self(text)
    }

    /// Adds an attempt.
    pub fn push(&mut self, step: Step<'_>, outcome: Outcome, took: Duration) {
        let separator = if self.0.is_empty() { "" } else { SEPARATOR };
        let (name, millis) = (step.name(), took.as_millis());
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{separator}{name};{outcome};{millis}ms");
    }

    /// Takes the last attempt away. Returns how it ended, where that can be told.
    pub fn pop(&mut self) -> Option<Outcome> {
        let start = self.0.rfind(SEPARATOR).unwrap_or_default();
        let last = self.0.split_off(start);
        last.split(';').nth(1).and_then(Outcome::parse)
    }

    /// Adds a word to the last attempt.
    pub fn remark(&mut self, word: &str) {
        self.0.push(';');
        self.0.push_str(word);
    }

    /// Number of attempts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries().count()
    }

    /// Whether no attempt has ended yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time that all of them took.
    #[must_use]
    pub fn took(&self) -> Duration {
        let millis = |entry: &str| entry.split(';').nth(2)?.strip_suffix("ms")?.parse().ok();
        self.entries()
            .filter_map(millis)
            .map(Duration::from_millis)
            .sum()
    }

    /// The trail as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn entries(&self) -> impl Iterator<Item = &str> {
        self.0.split(SEPARATOR).filter(|entry| !entry.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: Step<'static> = Step {
        service: None,
        model: None,
    };

    #[test]
    fn what_is_pushed_can_be_counted_and_popped() {
        let mut trail = Trail::default();
        assert_eq!(
            (trail.len(), trail.pop(), trail.took()),
            (0, None, Duration::ZERO)
        );
        trail.push(PRIMARY, Outcome::Status(503), Duration::from_millis(12));
        trail.push(
            PRIMARY,
            Outcome::StreamError,
            Duration::from_micros(840_900),
        );
        assert_eq!(
            trail.as_str(),
            "primary;503;12ms, primary;stream_error;840ms"
        );
        assert_eq!((trail.len(), trail.took()), (2, Duration::from_millis(852)));
        assert_eq!(trail.pop(), Some(Outcome::StreamError));
        assert_eq!(trail.as_str(), "primary;503;12ms");
        assert_eq!(trail.pop(), Some(Outcome::Status(503)));
        assert!(trail.is_empty());
    }

    #[test]
    fn a_remark_goes_to_the_last_attempt() {
        let mut trail = Trail::default();
        trail.push(PRIMARY, Outcome::Reset, Duration::ZERO);
        trail.remark("too_large");
        assert_eq!(trail.as_str(), "primary;reset;0ms;too_large");
        assert_eq!(trail.took(), Duration::ZERO);
    }
}
