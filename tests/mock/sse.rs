//! Good answers as streams of Server-Sent Events. One chunk is one event.

use bytes::Bytes;
use serde_json::{Value, json};

use super::answers::{self, Api, CREATED, Said};

/// The events of a good stream.
pub fn events(api: Api, said: &Said) -> Vec<Bytes> {
    let events = match api {
        Api::Chat => chat(said),
        Api::Responses => numbered(responses(said)),
        Api::Messages => messages(said),
        _ => completions(said),
    };
    let events = events.into_iter();
    let typed = events.map(|event| match event["type"].as_str() {
        Some(name) => format!("event: {name}\ndata: {event}\n\n"),
        None => format!("data: {event}\n\n"),
    });
    let done = matches!(api, Api::Chat | Api::Completions).then(|| "data: [DONE]\n\n".to_owned());
    typed.chain(done).map(Bytes::from).collect()
}

fn chat(said: &Said) -> Vec<Value> {
    let chunk = |choices: Value, usage: Value| {
        json!({
            "id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": CREATED,
            "model": said.asked.model(), "choices": choices, "usage": usage,
        })
    };
    let delta = |delta: Value, reason: Value| {
        let choice =
            json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}]);
        chunk(choice, Value::Null)
    };
    let mut events = vec![delta(
        json!({"role": "assistant", "content": ""}),
        Value::Null,
    )];
    let texts = said.pieces.iter();
    events.extend(texts.map(|text| delta(json!({"content": text}), Value::Null)));
    events.push(delta(json!({}), json!("stop")));
    if said.asked.usage() {
        events.push(chunk(json!([]), answers::openai_usage()));
    }
    events
}

fn completions(said: &Said) -> Vec<Value> {
    let event = |choices: Value| {
        json!({
            "id": "cmpl-mock", "object": "text_completion", "created": CREATED,
            "model": said.asked.model(), "choices": choices,
        })
    };
    let chunk = |text: &str, reason: Value| {
        event(json!([{"index": 0, "text": text, "logprobs": null, "finish_reason": reason}]))
    };
    let texts = said.pieces.iter();
    let mut events: Vec<Value> = texts.map(|text| chunk(text, Value::Null)).collect();
    events.push(chunk("", json!("stop")));
    if said.asked.usage() {
        let mut last = event(json!([]));
        last["usage"] = answers::openai_usage();
        events.push(last);
    }
    events
}

fn responses(said: &Said) -> Vec<Value> {
    let (model, text) = (said.asked.model(), said.text());
    let started = answers::response(model, "in_progress", None);
    let item = json!({
        "type": "message", "id": "msg_mock", "status": "in_progress", "role": "assistant",
        "content": [],
    });
    let part = |name: &str, rest: Value| {
        let mut event = json!({
            "type": format!("response.{name}"), "item_id": "msg_mock", "output_index": 0,
            "content_index": 0,
        });
        let fields = rest.as_object().cloned().unwrap_or_default();
        event.as_object_mut().expect("an object").extend(fields);
        event
    };
    let mut events = vec![
        json!({"type": "response.created", "response": started}),
        json!({"type": "response.in_progress", "response": started}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": item}),
        part(
            "content_part.added",
            json!({"part": answers::output_text("")}),
        ),
    ];
    let texts = said.pieces.iter();
    events.extend(texts.map(|text| {
        let rest = json!({"delta": text, "logprobs": []});
        part("output_text.delta", rest)
    }));
    events.extend([
        part("output_text.done", json!({"text": text, "logprobs": []})),
        part("content_part.done", json!({"part": answers::output_text(&text)})),
        json!({"type": "response.output_item.done", "output_index": 0, "item": answers::output_item(&text)}),
        json!({"type": "response.completed", "response": answers::response(model, "completed", Some(&text))}),
    ]);
    events
}

fn numbered(mut events: Vec<Value>) -> Vec<Value> {
    for (number, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(number);
    }
    events
}

fn messages(said: &Said) -> Vec<Value> {
    let mut events = vec![
        json!({"type": "message_start", "message": {
            "id": "msg_mock", "type": "message", "role": "assistant",
            "model": said.asked.model(), "content": [], "stop_reason": null,
            "stop_sequence": null, "usage": answers::anthropic_usage(1),
        }}),
        json!({"type": "content_block_start", "index": 0,
               "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
    ];
    let texts = said.pieces.iter();
    events.extend(texts.map(|text| {
        json!({"type": "content_block_delta", "index": 0,
               "delta": {"type": "text_delta", "text": text}})
    }));
    events.extend([
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta",
               "delta": {"stop_reason": "end_turn", "stop_sequence": null},
               "usage": {"output_tokens": 7}}),
        json!({"type": "message_stop"}),
    ]);
    events
}
