//! Requests to send.

const TEXT: &str = r#"He said \"no\", twice.\nThen he read on: 0.25 of the pages, in the chapter on caf\u00e9s, were missing. Nobody had told him, and nobody would. "#;
/// How often the text stands in a message: about 2 kB.
const REPEATED: usize = 14;

/// The body of a chat request of this size, or a little more where it is too small for one: a conversation, its text with
/// the escapes that text has.
pub fn chat(model: &str, stream: bool, size: usize) -> String {
    let start = format!(
        r#"{{"model":"{model}","stream":{stream},"temperature":0.7,"max_tokens":1024,"messages":["#
    );
    let end = "]}";
    let long = message(&TEXT.repeat(REPEATED)) + ",";
    let mut room = size.saturating_sub(start.len() + message("").len() + end.len());
    let messages = long.repeat(room / long.len());
    room %= long.len();
    let last = TEXT.repeat(room / TEXT.len()) + &"x".repeat(room % TEXT.len());
    format!("{start}{messages}{}{end}", message(&last))
}

fn message(text: &str) -> String {
    format!(r#"{{"role":"user","content":"{text}"}}"#)
}
