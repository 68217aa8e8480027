//! The trail of attempts, as `x-ai-fallback-attempts` shows it: `openai;503;12ms, qwen;200;840ms`.

use std::fmt::Write as _;
use std::time::Duration;

use super::outcome::Ended;
use super::plan::Step;

const SEPARATOR: &str = ", ";

/// What stands for the outcome of a service that was skipped.
pub const COOLING: &str = "cooling";

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
    pub fn push(&mut self, step: &Step, ended: &Ended, took: Duration) {
        self.separate();
        let (name, outcome, millis) = (step.name(), ended.outcome, took.as_millis());
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{name};{outcome};{millis}ms");
    }

    /// Adds a service that was skipped: `openai;cooling`.
    pub fn push_cooling(&mut self, step: &Step) {
        self.separate();
        self.0.push_str(step.name());
        self.remark(COOLING);
    }

    /// Adds a word to the last attempt.
    pub fn remark(&mut self, word: &str) {
        self.0.push(';');
        self.0.push_str(word);
    }

    /// The trail as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How the first attempt ended, or that its service was skipped: `503`, `reset`, `cooling`.
    #[must_use]
    pub fn first_outcome(&self) -> Option<&str> {
        self.0.split(',').next()?.split(';').nth(1)
    }

    fn separate(&mut self) {
        if !self.0.is_empty() {
            self.0.push_str(SEPARATOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::outcome::Outcome;
    use crate::core::plan::Health;

    const PRIMARY: Step = Step {
        service: None,
        model: None,
        alias: None,
        retries: 0,
        after: None,
        health: Health::Good,
    };

    fn ended(outcome: Outcome) -> Ended {
        Ended {
            outcome,
            kind: None,
            retry_after: None,
            fails: true,
        }
    }

    #[test]
    fn what_was_tried_and_what_was_skipped_stand_in_order() {
        let mut trail = Trail::default();
        trail.push_cooling(&PRIMARY);
        let refused = ended(Outcome::Status(400));
        trail.push(&PRIMARY, &refused, Duration::from_millis(12));
        trail.remark("context_length");
        let broken = ended(Outcome::StreamError);
        trail.push(&PRIMARY, &broken, Duration::from_micros(840_900));
        assert_eq!(
            trail.as_str(),
            "primary;cooling, primary;400;12ms;context_length, primary;stream_error;840ms"
        );
        assert_eq!(trail.first_outcome(), Some("cooling"));
    }

    #[test]
    fn a_trail_without_an_attempt_has_no_outcome() {
        let trail = Trail::default();
        assert_eq!(trail.first_outcome(), None);
    }

    #[test]
    fn a_remark_goes_to_the_last_attempt() {
        let mut trail = Trail::default();
        trail.push(&PRIMARY, &ended(Outcome::Reset), Duration::ZERO);
        trail.remark("too_large");
        assert_eq!(trail.as_str(), "primary;reset;0ms;too_large");
        assert_eq!(trail.first_outcome(), Some("reset"));
    }
}
