//! What a request itself may ask for: `client_models` and `client_controls`.

use crate::core::config::reader::{Fields, Item, Problems};

const MODELS_FIELDS: &[&str] = &["enabled", "max", "then_configured"];
const WORDS: [&str; 3] = ["off", "timeout", "deliver"];

/// Models that a request names itself, in `models` of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientModels {
    /// The most entries.
    pub max: usize,
    /// Whether the configured services follow.
    pub then_configured: bool,
}

/// What a request may ask for, by header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientControls {
    /// `x-ai-fallback: off`: no fallback for this request.
    pub off: bool,
    /// `x-ai-fallback-timeout-ms`: a shorter total timeout.
    pub timeout: bool,
    /// `x-ai-fallback-deliver`: `first_packet` or `complete`.
    pub deliver: bool,
}

impl ClientModels {
    /// `None` where it is not enabled as well: all of it is checked.
    pub(super) fn read(item: &Item<'_>, problems: &mut Problems) -> Option<Self> {
        let expected = "an object with the fields `max` and `then_configured`";
        let fields = item.fields(problems, expected, MODELS_FIELDS)?;
        let enabled = fields.boolean(problems, "enabled", true);
        let max = fields.count(problems, "max", 1..=20, 3);
        let then_configured = fields.boolean(problems, "then_configured", true);
        enabled.then_some(ClientModels {
            max: max as usize,
            then_configured,
        })
    }
}

impl ClientControls {
    pub(super) fn read(fields: &Fields<'_>, problems: &mut Problems) -> Self {
        let expected = "a list of controls, at least one";
        let written = fields.list(problems, "client_controls", expected, |item, p| {
            item.word(p, &WORDS)
        });
        let [off, timeout, deliver] = WORDS.map(|word| written.contains(&word));
        ClientControls {
            off,
            timeout,
            deliver,
        }
    }
}
