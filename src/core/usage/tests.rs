use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{Usage, UsageReader};
use crate::core::config::Node;

fn read(text: &str) -> Option<Usage> {
    read_cut(text.as_bytes(), &[])
}

/// Reads the bytes in pieces that end at these offsets.
fn read_cut(bytes: &[u8], cuts: &[usize]) -> Option<Usage> {
    let mut reader = UsageReader::default();
    let mut start = 0;
    for end in cuts.iter().chain([&bytes.len()]) {
        reader.feed(&bytes[start..*end]);
        start = *end;
    }
    reader.usage()
}

fn usage(prompt: u64, completion: u64, cached: u64) -> Option<Usage> {
    Some(Usage {
        prompt: Some(prompt),
        completion: Some(completion),
        cached: Some(cached),
    })
}

fn without_cached(prompt: u64, completion: u64) -> Option<Usage> {
    Some(Usage {
        cached: None,
        ..usage(prompt, completion, 0).unwrap()
    })
}

fn prompt(prompt: u64) -> Option<Usage> {
    Some(Usage {
        prompt: Some(prompt),
        ..Usage::default()
    })
}

/// As the providers document them, shortened where it does not matter.
const CHAT: &str = r#"{
  "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
  "object": "chat.completion",
  "choices": [{"index": 0, "message": {"role": "assistant", "content": "\"usage\": {\"prompt_tokens\": 99}", "annotations": []}, "finish_reason": "stop"}],
  "usage": {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "cached_tokens": 7, "accepted_prediction_tokens": 0}
  },
  "service_tier": "default"
}"#;
const CHAT_STREAM: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}\n\n\
data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}],\"usage\":null}\n\n\
data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":10,\"total_tokens\":29,\"prompt_tokens_details\":{\"cached_tokens\":8}}}\n\n\
data: [DONE]\n\n";
const EMBEDDINGS: &str = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.0023064255,-0.009327292,1e-5]}],"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}"#;
const RESPONSE: &str = r#"{"id":"resp_1","object":"response","output":[{"type":"message","content":[{"type":"output_text","text":"Hi"}]}],"usage":{"input_tokens":328,"input_tokens_details":{"cached_tokens":256},"output_tokens":52,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":380},"metadata":{}}"#;
const RESPONSE_STREAM: &str = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"usage\":null}}\n\n\
event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n\
event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"output\":[{\"usage\":{\"input_tokens\":9}}],\"usage\":{\"input_tokens\":37,\"output_tokens\":11,\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":48},\"user\":null}}\n\n";
const MESSAGE: &str = r#"{"id":"msg_1","type":"message","content":[{"type":"tool_use","input":{"usage":{"input_tokens":5}}}],"usage":{"input_tokens":21,"cache_creation_input_tokens":188086,"cache_read_input_tokens":1000,"cache_creation":{"ephemeral_5m_input_tokens":188086},"output_tokens":393,"service_tier":"standard"}}"#;
const MESSAGE_STREAM: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"content\":[],\"usage\":{\"input_tokens\":25,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":100,\"output_tokens\":1}}}\n\n\
event: ping\ndata: {\"type\": \"ping\"}\n\n\
event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello\"}}\n\n\
event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":15}}\n\n\
event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

#[test]
fn each_api_says_it_in_its_own_way() {
    let table = [
        (CHAT, usage(2006, 300, 1920)),
        (CHAT_STREAM, usage(19, 10, 8)),
        (EMBEDDINGS, prompt(8)),
        (RESPONSE, usage(328, 52, 256)),
        (RESPONSE_STREAM, without_cached(37, 11)),
        (MESSAGE, usage(21 + 188_086 + 1000, 393, 1000)),
        (MESSAGE_STREAM, usage(125, 15, 100)),
    ];
    for (text, expected) in table {
        assert_eq!(read(text), expected, "{text}");
        for cut in 0..text.len() {
            assert_eq!(read_cut(text.as_bytes(), &[cut]), expected, "{cut} {text}");
        }
        let each: Vec<usize> = (1..text.len()).collect();
        assert_eq!(read_cut(text.as_bytes(), &each), expected, "{text}");
    }
}

#[test]
fn only_the_usage_of_the_answer_itself_counts() {
    for text in [
        "",
        "  ",
        "{}",
        "[]",
        r#"[{"usage":{"prompt_tokens":1}}]"#,
        r#""usage""#,
        r#"{"usage":null}"#,
        r#"{"usage":5}"#,
        r#"{"usage":"{\"prompt_tokens\":1}"}"#,
        r#"{"usage":[{"prompt_tokens":1}]}"#,
        r#"{"usage":{}}"#,
        r#"{"usage":{"total_tokens":1,"more":{"prompt_tokens":1}}}"#,
        r#"{"usage":{"prompt_tokens_details":[{"cached_tokens":1}],"cached_tokens":null}}"#,
        r#"{"a":{"usage":{"prompt_tokens":1}},"b":[{"usage":{"prompt_tokens":1}}]}"#,
        r#"{"a":"\\\"usage\":{\"prompt_tokens\":1}","Usage":{"prompt_tokens":1}}"#,
        r#"{"message":{"usage":{"input_tokens":1}},"response":{"usage":{"input_tokens":1}}}"#,
        r#"{"prompt_tokens":1,"usages":{"prompt_tokens":1},"usag":{"prompt_tokens":1}}"#,
        r#"{} {"usage":{"prompt_tokens":1}}"#,
        "data: {\"message\":{\"message\":{\"usage\":{\"input_tokens\":1}}}}\n\n",
        "data: {\"delta\":{\"usage\":{\"output_tokens\":1}}}\n\n",
        "data: {\"message\":{},\"x\":{\"usage\":{\"output_tokens\":1}}}\n\n",
        "event: {\"usage\":{\"output_tokens\":1}}\n\n",
        ": {\"usage\":{\"output_tokens\":1}}\n\n",
        "database: {\"usage\":{\"output_tokens\":1}}\n\n",
        "data:  [DONE] {\"usage\":{\"output_tokens\":1}}\n\n",
        "event: a\n\u{feff}data: {\"usage\":{\"output_tokens\":1}}\n\n",
        "\u{1f}\u{8b}data: {\"usage\":{\"output_tokens\":1}}\n\n",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
}

#[test]
fn only_counts_are_taken() {
    let table = [
        ("0", Some(0)),
        ("7", Some(7)),
        ("4294967295", Some(u64::from(u32::MAX))),
        ("4294967296", None),
        ("99999999999999999999999999999999999999", None),
        ("12.0", None),
        ("1e3", None),
        ("-5", None),
        ("\"12\"", None),
        ("null", None),
        ("[12]", None),
        ("{\"prompt_tokens\":12}", None),
    ];
    for (value, expected) in table {
        for text in [
            format!("{{\"usage\":{{\"prompt_tokens\":{value}}}}}"),
            format!("{{\"usage\" : {{\"x\":[1,2], \"prompt_tokens\" : {value} , \"y\":3 }} }}"),
            format!("data:{{\"usage\":{{\"prompt_tokens\":{value}\ndata: }}}}"),
        ] {
            assert_eq!(read(&text), expected.and_then(prompt), "{text}");
        }
    }
}

#[test]
fn keys_may_be_escaped_and_repeated() {
    for text in [
        r#"{"\u0075sage":{"prompt\u005ftokens":4}}"#,
        r#"{"\u0075\u0073\u0061\u0067\u0065":{"\u0070\u0072\u006f\u006d\u0070\u0074\u005f\u0074\u006f\u006b\u0065\u006e\u0073":4}}"#,
        r#"{"usage":{"prompt_tokens":4,"prompt_tokens":3},"usage":null,"usage":{"prompt_tokens":1}}"#,
        r#"{"a\\":{"b\"":1},"\ud800":2,"usage":{"\"prompt_tokens":9,"prompt_tokens":4}}"#,
    ] {
        assert_eq!(read(text), prompt(4), "{text}");
        let event = format!("data: {text}\n\n");
        assert_eq!(read(&event), prompt(4), "{event}");
    }
    let long = "k".repeat(10_000);
    let text = format!(
        "{{\"{long}\":1,\"{long}usage\":2,\"usage\":{{\"{long}\":3,\"prompt_tokens\":4}}}}"
    );
    assert_eq!(read(&text), prompt(4));
}

#[test]
fn cached_tokens_are_a_part_of_the_prompt() {
    let table = [
        (
            r#""prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":4}"#,
            (10, 4),
        ),
        (
            r#""input_tokens":10,"input_tokens_details":{"cached_tokens":4}"#,
            (10, 4),
        ),
        (r#""input_tokens":10,"cache_read_input_tokens":4"#, (14, 4)),
        (
            r#""input_tokens":10,"cache_read_input_tokens":4,"cache_creation_input_tokens":2"#,
            (16, 4),
        ),
        (r#""prompt_tokens":10,"prompt_cache_hit_tokens":4"#, (10, 4)),
        (r#""prompt_tokens":10,"cached_tokens":4"#, (10, 4)),
        // A gateway that tells the numbers of both.
        (
            r#""prompt_tokens":16,"cache_read_input_tokens":4,"cache_creation_input_tokens":2"#,
            (16, 4),
        ),
        (
            r#""prompt_tokens":16,"prompt_tokens_details":{"cached_tokens":4},"cache_read_input_tokens":4"#,
            (16, 4),
        ),
        (
            r#""input_tokens":16,"input_tokens_details":{"cached_tokens":4},"cache_read_input_tokens":4"#,
            (16, 4),
        ),
    ];
    for (fields, (prompt, cached)) in table {
        let expected = Usage {
            prompt: Some(prompt),
            completion: None,
            cached: Some(cached),
        };
        let text = format!("{{\"usage\":{{{fields}}}}}");
        assert_eq!(read(&text), Some(expected), "{text}");
    }
}

#[test]
fn later_events_complete_earlier_ones_and_totals_only_grow() {
    let event = |fields: &str| format!("data: {{\"usage\":{{{fields}}}}}\n\n");
    let text = [
        event("\"prompt_tokens\":5,\"completion_tokens\":1"),
        event("\"prompt_tokens\":5,\"completion_tokens\":9"),
        event("\"completion_tokens\":2"),
        "data: {\"usage\":null}\n\n".to_owned(),
    ];
    assert_eq!(read(&text.concat()), without_cached(5, 9));
}

#[test]
fn several_places_of_one_event_count() {
    let text = r#"data: {"message":{"usage":{"input_tokens":1}},"usage":{"output_tokens":2},"response":{"usage":{"output_tokens":7}}}"#;
    assert_eq!(read(&format!("{text}\n\n")), without_cached(1, 7));
}

#[test]
fn an_event_is_read_where_a_line_of_it_is_about_something_else() {
    let text = "data: {\"a\":1,\ndata: \"usage\":{\"prompt_tokens\":4}}\n\n";
    assert_eq!(read(text), prompt(4));
}

#[test]
fn lines_end_in_any_way_and_data_may_have_many() {
    let lines = [
        "\u{feff}data: {\"usage\":",
        ": hi",
        "id: 7",
        "data:{\"prompt_tokens\":4",
        "data",
        "data:}}",
        "",
        "data: {\"usage\":{\"prompt_tokens\":9",
        "",
        "data: 9}}",
        "",
    ];
    for end in ["\n", "\r", "\r\n"] {
        let text = lines.join(end);
        for cut in 0..text.len() {
            // The second event is cut off behind a number: the line has ended, so that it is one.
            assert_eq!(
                read_cut(text.as_bytes(), &[cut]),
                prompt(9),
                "{end:?} {cut}"
            );
        }
    }
}

#[test]
fn what_is_cut_off_counts_for_what_it_said() {
    let start = MESSAGE_STREAM.find("event: ping").unwrap();
    assert_eq!(read(&MESSAGE_STREAM[..start]), usage(125, 1, 100));
    let text = r#"{"usage":{"prompt_tokens":12,"completion_tokens":34"#;
    assert_eq!(read(text), prompt(12), "who knows how 34 goes on");
    for text in [
        r#"{"usage":{"prompt_tokens":12,]"#,
        r#"{"usage":{"prompt_tokens":12}}]]}}"#,
        r#"{"usage":{"prompt_tokens":12}],"usage":{"prompt_tokens":13}}"#,
        r#"{"usage":{"prompt_tokens":12},5,"usage":{"prompt_tokens":13}}"#,
    ] {
        assert_eq!(read(text), prompt(12), "{text}");
    }
}

#[test]
fn nesting_has_no_limit() {
    let deep = "[{\"a\":".repeat(100_000);
    let close = "}]".repeat(100_000);
    let text = format!("{{\"a\":{deep}1{close},\"usage\":{{\"prompt_tokens\":3}}}}");
    assert_eq!(read(&text), prompt(3));
    assert_eq!(read(&format!("{{\"a\":{deep}")), None);
}

#[test]
fn it_says_when_no_more_is_wanted() {
    for (text, wanted) in [
        ("", true),
        (" \n", true),
        ("{", true),
        ("{}", false),
        ("\u{1f}\u{8b}", false),
        ("RIFF", false),
        ("data: {}\n\n", true),
        ("data: [DONE]\n\n", true),
    ] {
        let mut reader = UsageReader::default();
        reader.feed(text.as_bytes());
        assert_eq!(reader.wants_more(), wanted, "{text:?}");
    }
}

#[test]
fn memory_is_bounded() {
    let mut reader = UsageReader::default();
    reader.feed(b"data: {\"");
    for _ in 0..1000 {
        reader.feed(&[b'k'; 1000]);
        reader.feed(b"\\\"");
    }
    let debug = format!("{reader:?}");
    assert!(debug.len() < 2000, "{}", debug.len());
    let mut reader = UsageReader::default();
    reader.feed(b"e");
    reader.feed(&[b'k'; 100_000]);
    assert!(format!("{reader:?}").len() < 2000);
}

proptest! {
    #[test]
    fn a_whole_answer_says_what_a_json_library_finds(json in object(3), cuts in cuts()) {
        let bytes = json.as_bytes();
        let mut expected = Reference::default();
        expected.read(&json, false);
        prop_assert_eq!(read_cut(bytes, &offsets(bytes, &cuts)), expected.usage(), "{}", json);
    }

    #[test]
    fn a_stream_says_what_a_json_library_finds(events in vec(event(), 0..5), cuts in cuts()) {
        let text: String = events.iter().map(|(text, _)| text.as_str()).collect();
        let mut expected = Reference::default();
        for (_, json) in &events {
            expected.read(json, true);
        }
        let bytes = text.as_bytes();
        prop_assert_eq!(read_cut(bytes, &offsets(bytes, &cuts)), expected.usage(), "{}", text);
    }

    #[test]
    fn the_cut_makes_no_difference(pieces in vec(piece(), 0..60), cuts in cuts()) {
        let bytes = pieces.concat();
        let bytes = bytes.as_bytes();
        let each: Vec<usize> = (0..bytes.len()).collect();
        let whole = read_cut(bytes, &[]);
        prop_assert_eq!(read_cut(bytes, &offsets(bytes, &cuts)), whole);
        prop_assert_eq!(read_cut(bytes, &each), whole);
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..200)) {
        read_cut(&bytes, &[]);
        read_cut(&[b"data: {", &bytes[..]].concat(), &[]);
    }
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    vec(any::<Index>(), 0..6)
}

fn offsets(bytes: &[u8], cuts: &[Index]) -> Vec<usize> {
    let mut offsets: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    offsets.sort_unstable();
    offsets
}

/// Pieces that make sense together now and then.
fn piece() -> impl Strategy<Value = String> {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\n",
        "\r",
        "\r\n",
        "data:",
        "data: ",
        "event: x",
        " ",
        "12",
        "-",
        "1e3",
        "\"usage\"",
        "\"usage\":{",
        "\"message\":{",
        "\"response\":{",
        "\"input_tokens\":3",
        "\"prompt_tokens\":4,",
        "\"cached_tokens\":5",
        "\"prompt_tokens_details\":{",
        "\"\\u0075sage\":",
        "null",
        "\\u0075",
        "é",
    ];
    prop_oneof![
        4 => select(&["{\"usage\":{", "data: {\"usage\":{\"output_tokens\":7}}\n\n", "data: {"][..]),
        20 => select(pieces.to_vec()),
    ]
    .prop_map(str::to_owned)
}

fn object(depth: u32) -> BoxedStrategy<String> {
    let entry = (key(), value(depth), space());
    vec(entry, 0..5)
        .prop_map(|entries| {
            let entries: Vec<String> = entries
                .into_iter()
                .map(|(key, value, space)| format!("{space}{key}{space}:{value}{space}"))
                .collect();
            format!("{{{}}}", entries.join(","))
        })
        .boxed()
}

fn value(depth: u32) -> BoxedStrategy<String> {
    let scalar = select(
        &[
            "null",
            "true",
            "0",
            "1",
            "42",
            "1000",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "1.5",
            "25e-1",
            "-7",
            "\"\"",
            "\"usage\"",
            r#""\"usage\":{\"input_tokens\":1}""#,
            r#""\\""#,
            r#""é{[""#,
            "[]",
            "[1,2.5,[3]]",
        ][..],
    )
    .prop_map(str::to_owned);
    if depth == 0 {
        return scalar.boxed();
    }
    let list = vec(value(depth - 1), 0..3).prop_map(|items| format!("[{}]", items.join(" ,")));
    let telling = select(
        &[
            r#"{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":2}}"#,
            r#"{"input_tokens":6,"output_tokens":5}"#,
            r#"{"usage":{"output_tokens":6}}"#,
            r#"{"\u0075sage":{"output_tokens":8}}"#,
        ][..],
    )
    .prop_map(str::to_owned);
    prop_oneof![3 => scalar, 4 => object(depth - 1), 1 => list, 3 => telling].boxed()
}

fn key() -> impl Strategy<Value = String> {
    select(
        &[
            "usage",
            "\\u0075sage",
            "message",
            "response",
            "prompt_tokens",
            "completion_tokens",
            "input_tokens",
            "output_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "prompt_tokens_details",
            "input_tokens_details",
            "cached_tokens",
            "prompt_cache_hit_tokens",
            "x",
            "",
            "us\\\"age",
            "\\\\",
            "cache\\u005fread_input_tokens",
        ][..],
    )
    .prop_map(|key| format!("\"{key}\""))
}

fn space() -> impl Strategy<Value = &'static str> {
    select(&["", "", "", " ", "  \t", "\n"][..])
}

/// An event, and the JSON in it.
fn event() -> impl Strategy<Value = (String, String)> {
    let end = select(&["\n", "\r\n", "\r"][..]);
    let before = select(&["", ": hi", "event: message_delta", "id", "data"][..]);
    (object(4), before, end, select(&["data:", "data: "][..])).prop_map(
        |(json, before, end, field)| {
            let before = match before {
                "" => String::new(),
                before => format!("{before}{end}"),
            };
            let data = json.replace('\n', &format!("{end}{field}"));
            (format!("{before}{field}{data}{end}{end}"), json)
        },
    )
}

/// The same by a JSON library, which reads all numbers as `f64`: the fractions above are none without their dot.
#[derive(Default)]
struct Reference {
    counts: Vec<(String, u64)>,
}

impl Reference {
    fn read(&mut self, json: &str, wraps: bool) {
        let top = Node::from_json(json.as_bytes()).expect(json);
        self.read_usages(&top);
        for (_, value) in members(&top)
            .filter(|(key, _)| wraps && ["message", "response"].contains(&key.as_str()))
        {
            self.read_usages(value);
        }
    }

    fn read_usages(&mut self, of: &Node) {
        for (_, usage) in members(of).filter(|(key, _)| key == "usage") {
            self.count(usage, |_| true);
            for (_, details) in members(usage).filter(|(key, _)| key.ends_with("_details")) {
                self.count(details, |key| key == "cached_tokens");
            }
        }
    }

    fn count(&mut self, of: &Node, counts: impl Fn(&str) -> bool) {
        for (key, value) in members(of) {
            let range = 0.0..=f64::from(u32::MAX);
            match value {
                Node::Number(number)
                    if counts(key) && number.fract() == 0.0 && range.contains(number) =>
                {
                    self.counts.push((key.clone(), *number as u64));
                }
                _ => {}
            }
        }
    }

    fn usage(&self) -> Option<Usage> {
        let largest = |name| {
            let counts = self.counts.iter().filter(|(key, _)| key == name);
            counts.map(|(_, count)| *count).max()
        };
        let read = largest("cache_read_input_tokens");
        let created = largest("cache_creation_input_tokens");
        let cached = largest("cached_tokens").max(largest("prompt_cache_hit_tokens"));
        let prompt = match (largest("prompt_tokens"), largest("input_tokens"), cached) {
            (Some(prompt), ..) => Some(prompt),
            (None, Some(input), None) => {
                Some(input + read.unwrap_or_default() + created.unwrap_or_default())
            }
            (None, input, _) => input,
        };
        let usage = Usage {
            prompt,
            completion: largest("completion_tokens").max(largest("output_tokens")),
            cached: cached.or(read),
        };
        (usage != Usage::default()).then_some(usage)
    }
}

/// The members of an object, as often as they are there; none of anything else.
fn members(node: &Node) -> impl Iterator<Item = &(String, Node)> {
    let members = match node {
        Node::Object(members) => members.as_slice(),
        _ => &[],
    };
    members.iter()
}
