//! The index against the plain meaning of "first match wins".

use std::cell::Cell;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::*;
use crate::core::config::{Config, Node};

fn config(model_apis: &[Value]) -> Config {
    let named = model_apis
        .iter()
        .enumerate()
        .map(|(index, matching)| json!({"name": format!("api{index}"), "match": matching}));
    let value =
        json!({"services": {"a": {"cluster": "a"}}, "model_apis": named.collect::<Vec<_>>()});
    let node = Node::from_json(value.to_string().as_bytes()).unwrap();
    Config::parse(&node, &|_| None).unwrap()
}

type Headers = Vec<(&'static str, &'static str)>;

fn lookup<'h>(headers: &'h Headers) -> impl Fn(&str) -> Option<&'h [u8]> {
    |name| {
        headers
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.as_bytes())
    }
}

fn oracle(api: &ModelApi, path: &[u8], headers: &Headers) -> bool {
    let (path, _) = split_query(path);
    let path_fits = match api.paths.as_slice() {
        [] => is_known(path),
        paths => paths.iter().any(|pattern| pattern.matches(path)),
    };
    let mut wanted = api.headers.iter();
    path_fits && wanted.all(|(name, value)| lookup(headers)(name) == Some(value.as_bytes()))
}

fn model_oracle(api: &ModelApi, model: Option<&str>) -> bool {
    api.models.is_empty()
        || model.is_some_and(|model| api.models.iter().any(|p| p.matches(model.as_bytes())))
}

fn matching() -> impl Strategy<Value = Value> {
    let paths = subsequence(
        vec!["/a/completions", "/b", "/b/*", "*/completions", "*"],
        0..3,
    );
    let models = subsequence(vec!["m1", "m2", "m*", "*2", "*"], 0..3);
    let headers = subsequence(vec![("x-a", "1"), ("x-b", "1")], 0..=2);
    (paths, models, headers, any::<bool>()).prop_map(|(paths, models, headers, second)| {
        let mut value = json!({});
        if !paths.is_empty() {
            value["paths"] = json!(paths);
        }
        if !models.is_empty() {
            value["models"] = json!(models);
        }
        for (name, text) in headers {
            value["headers"][name] = json!(if second { "2" } else { text });
        }
        value
    })
}

fn request() -> impl Strategy<Value = (&'static str, Option<&'static str>, Headers)> {
    let path = select(vec![
        "/a/completions",
        "/a/completions?x=/b",
        "/b",
        "/b/",
        "/b/messages",
        "/c",
        "",
    ]);
    let model = select(vec![
        None,
        Some("m1"),
        Some("m2"),
        Some("m3"),
        Some("x2"),
        Some(""),
    ]);
    let headers = subsequence(
        vec![("x-a", "1"), ("x-a", "2"), ("x-b", "1"), ("x-b", "2")],
        0..3,
    );
    (path, model, headers)
}

proptest! {
    #[test]
    fn the_index_finds_the_first_match(
        apis in prop::collection::vec(matching(), 1..8),
        requests in prop::collection::vec(request(), 20),
    ) {
        let config = config(&apis);
        for (path, model, headers) in requests {
            let path = path.as_bytes();
            let candidates = config.candidates(path, lookup(&headers));
            let fits = |api: &&Rc<ModelApi>| oracle(api, path, &headers);
            let fitting = || config.model_apis.iter().filter(fits);
            prop_assert_eq!(candidates.is_empty(), fitting().next().is_none());
            let first = fitting().find(|api| model_oracle(api, model));
            prop_assert_eq!(candidates.first_for(model), first);
            let unread = fitting().find(|api| api.models.is_empty()).or_else(|| fitting().next());
            prop_assert_eq!(candidates.unread(), unread);
        }
    }
}

fn name_of(api: Option<&Rc<ModelApi>>) -> Option<&str> {
    api.map(|api| api.name.as_str())
}

fn no_header(_: &str) -> Option<Vec<u8>> {
    None
}

#[test]
fn the_known_paths_are_the_default() {
    let config = config(&[json!({})]);
    let is_candidate = |path: &str| !config.candidates(path.as_bytes(), no_header).is_empty();
    for end in KNOWN_PATHS {
        assert!(is_candidate(&format!("/any{end}")), "{end}");
        assert!(is_candidate(&format!("{end}?api-version=1")), "{end}");
        assert!(!is_candidate(&format!("{end}/")), "{end}");
        assert!(!is_candidate(&format!("/x?y={end}")), "{end}");
    }
    assert!(!is_candidate("/v1/models"));
    assert!(!is_candidate(""));
    assert!(
        !config
            .candidates(b"/v1\xff/embeddings", no_header)
            .is_empty()
    );
}

#[test]
fn many_model_apis_on_one_path_are_told_apart_by_model() {
    let api = |n| json!({"paths": ["/v1/x"], "models": [format!("m{n}")]});
    let config = config(&(0..5_000).map(api).collect::<Vec<_>>());
    let candidates = config.candidates(b"/v1/x", no_header);
    assert_eq!(candidates.buckets.len(), 1);
    assert!(candidates.buckets[0].wild.is_empty());
    assert_eq!(
        name_of(candidates.first_for(Some("m4999"))),
        Some("api4999")
    );
    assert_eq!(name_of(candidates.first_for(Some("m5000"))), None);
    assert_eq!(name_of(candidates.first_for(None)), None);
    assert_eq!(name_of(candidates.unread()), Some("api0"));
}

#[test]
fn many_model_apis_on_one_path_are_told_apart_by_header() {
    let api = |n| json!({"headers": {"X-Tenant": format!("t{n}")}});
    let config = config(&(0..5_000).map(api).collect::<Vec<_>>());
    let asked = Cell::new(0);
    let candidates = config.candidates(b"/v1/messages", |name| {
        assert_eq!(name, "x-tenant");
        asked.set(asked.get() + 1);
        Some("t4321")
    });
    assert_eq!(candidates.buckets.len(), 1);
    assert_eq!(name_of(candidates.first_for(None)), Some("api4321"));
    assert_eq!(asked.get(), 1);
}

#[test]
fn headers_are_not_looked_up_in_vain() {
    let config = config(&[
        json!({"paths": ["/a"], "headers": {"x-a": "1"}}),
        json!({"paths": ["/b"]}),
    ]);
    let panics = |_: &str| -> Option<Vec<u8>> { panic!("looked up") };
    assert!(config.candidates(b"/c", panics).is_empty());
    assert_eq!(
        name_of(config.candidates(b"/b", panics).first_for(None)),
        Some("api1")
    );
}

#[test]
fn candidates_outlive_their_configuration() {
    let candidates = config(&[json!({})]).candidates(b"/v1/messages", no_header);
    assert_eq!(name_of(candidates.first_for(Some("m"))), Some("api0"));
}
