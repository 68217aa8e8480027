//! What the documentation says is so: its examples are configurations that the filter takes, each error line is what the parser
//! says, and nothing that exists is missing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ai_fallback::core::config::{ClientControls, Config, KNOWN_PATHS, Node};
use ai_fallback::core::fallback::Failure;
use ai_fallback::core::plan::Denied;
use ai_fallback::core::provider_error::ErrorKind;
use ai_fallback::core::reply::{Problem, Reply, Shape};
use ai_fallback::core::request::BodyError;
use ai_fallback::core::wish::Wish;

/// The fields that a whole configuration has.
const TOP_LEVEL: [&str; 10] = [
    "dispatch",
    "buffer_limit_bytes",
    "max_body_bytes",
    "max_hops",
    "credential_names",
    "services",
    "model_apis",
    "access",
    "cooldown",
    "telemetry",
];

/// A fenced block of a page.
struct Block {
    at: String,
    language: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All pages, by path from the top of the project.
fn pages() -> Vec<(String, String)> {
    let mut paths = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
        .map(str::to_owned)
        .to_vec();
    for folder in ["docs", "docs/adr"] {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        paths.extend(
            names
                .filter(|name| name.ends_with(".md"))
                .map(|name| format!("{folder}/{name}")),
        );
    }
    paths
        .into_iter()
        .map(|path| (path.clone(), page(&path)))
        .collect()
}

fn blocks(path: &str, page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in page.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                open = true;
                blocks.push(Block {
                    at: format!("{path}:{}", number + 1),
                    language: language.to_owned(),
                    text: String::new(),
                });
            }
            None if open => {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
    }
    assert!(!open, "{path}: a block has no end");
    blocks
}

/// The value as the parser of the configuration takes it.
fn read_yaml(block: &Block) -> Node {
    serde_saphyr::from_str(&block.text).unwrap_or_else(|error| panic!("{}: {error}", block.at))
}

fn field<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    let Node::Object(entries) = node else {
        return None;
    };
    entries
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

/// A configuration that shows only a part is given the rest.
fn completed(node: &Node) -> Option<Node> {
    let Node::Object(entries) = node else {
        return None;
    };
    if !entries
        .iter()
        .any(|(key, _)| TOP_LEVEL.contains(&key.as_str()))
    {
        return None;
    }
    let rest = r#"{"services": {"openai": {"cluster": "openai"}, "qwen": {"cluster": "qwen"}}, "model_apis": [{"name": "chat"}]}"#;
    let Ok(Node::Object(rest)) = Node::from_json(rest.as_bytes()) else {
        panic!("not an object")
    };
    let missing = rest
        .into_iter()
        .filter(|(key, _)| field(node, key).is_none());
    Some(Node::Object(
        entries.iter().cloned().chain(missing).collect(),
    ))
}

/// Every configuration within `node`: the whole, or those inside of Envoy's or Istio's.
fn configurations(node: &Node) -> Vec<Node> {
    if let Some(whole) = completed(node) {
        return vec![whole];
    }
    match node {
        Node::Object(entries) => entries
            .iter()
            .flat_map(|(_, value)| configurations(value))
            .collect(),
        Node::List(nodes) => nodes.iter().flat_map(configurations).collect(),
        Node::String(text) if text.contains("\"model_apis\"") => {
            vec![Node::from_json(text.as_bytes()).expect(text)]
        }
        _ => Vec::new(),
    }
}

/// The variables that the examples use.
fn env(name: &str) -> Option<String> {
    ["TEAM", "QWEN_KEY"].contains(&name).then(|| "x".to_owned())
}

fn errors(node: &Node) -> Vec<String> {
    let result = Config::parse(node, &env);
    let errors = result.err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

fn is_errors(block: &Block) -> bool {
    block.text.starts_with("config: ")
}

#[test]
fn every_example_is_a_configuration_that_the_filter_takes() {
    let mut seen = 0;
    for (path, page) in pages() {
        let blocks = blocks(&path, &page);
        for (index, block) in blocks.iter().enumerate() {
            let bad = blocks.get(index + 1).is_some_and(is_errors);
            if block.language != "yaml" || bad {
                continue;
            }
            for config in configurations(&read_yaml(block)) {
                assert_eq!(errors(&config), [""; 0], "{}", block.at);
                seen += 1;
            }
        }
    }
    assert!(seen >= 10, "only {seen} configurations were found");
}

#[test]
fn every_error_line_is_what_the_parser_says() {
    let page = page("docs/configuration.md");
    let blocks = blocks("docs/configuration.md", &page);
    let pairs = blocks.windows(2).filter(|pair| is_errors(&pair[1]));
    let mut seen = 0;
    for pair in pairs {
        let config = completed(&read_yaml(&pair[0])).expect(&pair[0].at);
        let expected: Vec<&str> = pair[1].text.lines().collect();
        assert_eq!(errors(&config), expected, "{}", pair[0].at);
        seen += 1;
    }
    assert_eq!(
        seen,
        blocks.iter().filter(|block| is_errors(block)).count(),
        "error lines without a snippet before them"
    );
    assert!(seen >= 7, "only {seen} snippets were found");
}

/// The part of a page under a heading, up to the next one.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page
        .find(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("no heading {heading}"))
        + heading.len()
        + 2;
    let rest = &page[start..];
    rest.find("\n#").map_or(rest, |end| &rest[..end])
}

/// The names in the first column of the first table.
fn first_column(section: &str) -> Vec<&str> {
    let rows = section
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').nth(1).unwrap().trim().trim_matches('`'))
        .collect()
}

/// The fields that the parser knows, told by its error about one that it does not know.
fn known_fields(json: &str) -> Vec<String> {
    let node = Node::from_json(json.as_bytes()).unwrap();
    let line = errors(&completed(&node).unwrap())
        .into_iter()
        .find(|line| line.contains("zzzzzz: unknown field"))
        .expect(json);
    assert!(!line.contains(" more"), "the list is cut: {line}");
    let list = line.split_once("expected one of ").unwrap().1;
    list.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_reference_has_every_field_and_no_other() {
    let page = page("docs/configuration.md");
    let places = [
        ("## Top level", r#"{"dispatch": "callout", "zzzzzz": 1}"#),
        (
            "## Credential names",
            r#"{"credential_names": {"zzzzzz": 1}}"#,
        ),
        (
            "## Services",
            r#"{"services": {"a": {"cluster": "a", "zzzzzz": 1}}}"#,
        ),
        (
            "## Model APIs",
            r#"{"model_apis": [{"name": "a", "zzzzzz": 1}]}"#,
        ),
        (
            "### `match`",
            r#"{"model_apis": [{"name": "a", "match": {"zzzzzz": 1}}]}"#,
        ),
        (
            "### `primary`",
            r#"{"model_apis": [{"name": "a", "primary": {"zzzzzz": 1}}]}"#,
        ),
        (
            "### `fallback`",
            r#"{"model_apis": [{"name": "a", "fallback": {"zzzzzz": 1}}]}"#,
        ),
        (
            "### `fallback.services`",
            r#"{"model_apis": [{"name": "a", "fallback": {"services": [{"zzzzzz": 1}]}}]}"#,
        ),
        (
            "### `retry`",
            r#"{"model_apis": [{"name": "a", "fallback": {"retry": {"zzzzzz": 1}}}]}"#,
        ),
        (
            "### `client_models`",
            r#"{"model_apis": [{"name": "a", "fallback": {"client_models": {"zzzzzz": 1}}}]}"#,
        ),
        ("## Access", r#"{"access": {"zzzzzz": 1}}"#),
        (
            "### Policies",
            r#"{"access": {"policies": [{"zzzzzz": 1}]}}"#,
        ),
        (
            "### `allow` and `deny`",
            r#"{"access": {"default_policy": {"deny": {"zzzzzz": 1}}}}"#,
        ),
        ("## Cooldown", r#"{"cooldown": {"zzzzzz": 1}}"#),
    ];
    for (heading, json) in places {
        assert_eq!(
            first_column(section(&page, heading)),
            known_fields(json),
            "{heading}"
        );
    }
    let kinds = ErrorKind::NAMES.map(|(name, _)| name);
    assert_eq!(first_column(section(&page, "### Kinds of errors")), kinds);
    for known in KNOWN_PATHS {
        assert!(
            section(&page, "### `match`").contains(&format!("`{known}`")),
            "{known}"
        );
    }
}

/// The texts of a list of the source, such as `const NAME: [&str; 2] = ["a", "b"];`.
fn listed<'a>(source: &'a str, name: &str) -> BTreeSet<&'a str> {
    let start = source.find(&format!("const {name}: ")).expect(name);
    let list = source[start..].split(" = [").nth(1).expect(name);
    let list = list.split("];").next().unwrap();
    list.split('"').skip(1).step_by(2).collect()
}

#[test]
fn every_known_name_of_a_credential_is_in_the_table() {
    let page = page("docs/configuration.md");
    let section = section(&page, "### The known names");
    let source = fs::read_to_string(root().join("src/core/config/credentials.rs")).unwrap();
    let shown = |rows: &[&str]| -> BTreeSet<&str> {
        let rows = section.lines().filter(|line| {
            let first = line.split('|').nth(1).unwrap_or_default();
            rows.contains(&first.trim())
        });
        let cells = rows.filter_map(|row| row.split('|').nth(2));
        cells
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect()
    };
    let headers = [
        "headers with a credential",
        "headers with the account that a credential belongs to",
    ];
    let subprotocols = "protocols in `sec-websocket-protocol` that begin with";
    assert_eq!(shown(&headers), listed(&source, "HEADERS"));
    assert_eq!(shown(&["query parameters"]), listed(&source, "QUERY"));
    assert_eq!(shown(&[subprotocols]), listed(&source, "SUBPROTOCOLS"));
}

#[test]
fn the_defaults_written_out_mean_the_same() {
    let page = page("docs/configuration.md");
    let section = section(&page, "## Defaults");
    let parsed: Vec<Config> = blocks("defaults", section)
        .iter()
        .map(|block| Config::parse(&read_yaml(block), &env).unwrap())
        .collect();
    let [short, written_out] = parsed.as_slice() else {
        panic!("not two blocks")
    };
    assert_eq!(short, written_out);
}

#[test]
fn every_error_of_the_filter_is_in_the_table() {
    let page = page("docs/behaviour.md");
    let section = section(&page, "## Errors made by the filter");
    let bodies = [
        BodyError::Empty,
        BodyError::NotAnObject,
        BodyError::NotUtf8 { offset: 17 },
        BodyError::Syntax { offset: 17 },
        BodyError::Truncated,
        BodyError::TooDeep,
        BodyError::Duplicate("model"),
        BodyError::ModelNotAString,
        BodyError::Duplicate("models"),
        BodyError::ModelsNotAList,
        BodyError::ModelsEmpty,
        BodyError::ModelsTooMany { max: 3 },
        BodyError::ModelsEntry,
    ];
    let denied = [
        Denied::Entry("openai:o3".to_owned()),
        Denied::Model("o3".to_owned()),
        Denied::Service("openai".to_owned()),
        Denied::NoModel,
    ];
    let allowed = ClientControls {
        off: true,
        timeout: true,
        deliver: true,
    };
    let bad_header = |name: &str| {
        let header = (name.to_owned(), b"?".to_vec());
        Problem::Header(Wish::read(allowed, &[header]).unwrap_err())
    };
    let headers =
        ["", "-timeout-ms", "-deliver"].map(|end| bad_header(&format!("x-ai-fallback{end}")));
    let problems = bodies.into_iter().map(Problem::Body);
    let problems = problems.chain(headers).chain(denied.map(Problem::Denied));
    let others = [
        Problem::Unreadable,
        Problem::Path,
        Problem::Loop,
        Problem::NoAnswer(Failure::Transport),
        Problem::NoAnswer(Failure::Timeout),
    ];
    for problem in problems.chain(others) {
        let [openai, anthropic] = [Shape::OpenAi, Shape::Anthropic].map(|shape| {
            let reply = Reply::new(shape, &problem);
            let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
            (reply.status, body)
        });
        let error = &openai.1["error"];
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let message = format!(" {} |", text(&error["message"]));
        let row = section.lines().find(|line| line.ends_with(&message));
        let row = row.unwrap_or_else(|| panic!("no row with {message}"));
        assert!(row.starts_with(&format!("| {} |", openai.0)), "{row}");
        // Rows of one kind share what the first of them says.
        let kind = format!("`{}`, `{}`", text(&error["type"]), text(&error["code"]));
        let anthropic = format!("`{}`", text(&anthropic.1["error"]["type"]));
        let first = section.lines().find(|line| line.contains(&kind));
        assert!(first.expect(&kind).contains(&anthropic), "{kind}");
    }
    let problem = Problem::Body(BodyError::ModelNotAString);
    let shown = blocks("errors", section);
    for (block, shape) in shown.iter().zip([Shape::Anthropic, Shape::OpenAi]) {
        let [shown, real] = [&block.text, &Reply::new(shape, &problem).body]
            .map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert_eq!(shown, real);
    }
    assert_eq!(shown.len(), 2);
}

#[test]
fn every_metric_is_in_the_table() {
    const DEFINED_BY: [&str; 5] = [
        ".add(\"",
        ".set(\"",
        ".record(\"",
        "Gauge::new(&stats,\"",
        "=>(\"",
    ];
    let source: String = page("src/envoy/metrics.rs");
    let source: String = source.split_whitespace().collect();
    let names = |start| {
        source
            .split(start)
            .skip(1)
            .filter_map(|rest: &str| rest.split('"').next())
    };
    let defined: BTreeSet<&str> = DEFINED_BY.into_iter().flat_map(names).collect();
    let page = page("docs/observability.md");
    let shown = first_column(section(&page, "## Metrics"));
    assert_eq!(BTreeSet::from_iter(shown), defined);
}

/// The fields of the access log in a file, with what each reads.
fn log_format(file: &str) -> serde_json::Map<String, serde_json::Value> {
    let example: serde_json::Value = serde_saphyr::from_str(&page(file)).unwrap();
    let listener = &example["static_resources"]["listeners"][0];
    let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    let format = &manager["access_log"][0]["typed_config"]["log_format"]["json_format"];
    format.as_object().expect(file).clone()
}

#[test]
fn the_access_log_is_the_same_in_all_examples_and_has_every_key_of_the_docs() {
    let format = log_format("envoy/callout.yaml");
    assert_eq!(format, log_format("envoy/router.yaml"));
    let page = page("docs/observability.md");
    let section = section(&page, "## Access logs");
    let keys = first_column(section);
    let keys: Vec<&str> = keys.iter().flat_map(|cell| cell.split("`, `")).collect();
    let read = format.values().filter_map(|value| {
        let rest = value
            .as_str()?
            .strip_prefix("%FILTER_STATE(wasm.ai_fallback.")?;
        rest.split(':').next()
    });
    assert!(!keys.is_empty());
    assert_eq!(sorted(keys), sorted(read.collect()));
    // That a real line has the same shape is for the end to end tests.
    let blocks = blocks("access logs", section);
    let line = blocks
        .iter()
        .find(|block| block.language == "json")
        .unwrap();
    let line: serde_json::Value = serde_json::from_str(&line.text).unwrap();
    let shown = line.as_object().unwrap().keys().map(String::as_str);
    let fields = format.keys().map(String::as_str);
    assert_eq!(sorted(shown.collect()), sorted(fields.collect()));
}

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names
}

/// The anchor of a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter_map(|letter| match letter {
            ' ' => Some('-'),
            _ => (letter.is_alphanumeric() || "-_".contains(letter)).then_some(letter),
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    for (path, page) in pages() {
        let folder = Path::new(&path).parent().unwrap();
        for link in page.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            let (file, wanted) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => root().join(&path),
                file => root().join(folder).join(file),
            };
            assert!(target.exists(), "{path}: {link}");
            let found = wanted.is_empty()
                || fs::read_to_string(&target)
                    .unwrap()
                    .lines()
                    .any(|line| line.starts_with('#') && anchor(line) == wanted);
            assert!(found, "{path}: {link}");
        }
    }
}
