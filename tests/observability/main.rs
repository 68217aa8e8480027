//! The dashboard, the scrape configuration and the queries of the documentation, with a real Prometheus that reads the gateways
//! of the demo: each query finds what it asks for.
//!
//! Where a metric, a label or a value of one is renamed, this shows which query still has the old name.

#[path = "../demo/ask.rs"]
#[allow(dead_code)]
mod ask;
#[path = "../mock/mod.rs"]
mod mock;
#[path = "../demo/rows.rs"]
#[allow(dead_code)]
mod rows;
#[path = "../demo/stack.rs"]
#[allow(dead_code)]
mod stack;
#[path = "../support/mod.rs"]
mod support;

mod files;
mod prometheus;
mod queries;
mod traffic;

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::prometheus::Prometheus;
use crate::queries::Query;
use crate::stack::{Dispatch, Ports, Stack};

/// Far more than the few times that Prometheus must have read the gateways.
const LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread")]
async fn every_query_finds_data() {
    let stacks = [Dispatch::Callout, Dispatch::Router]
        .map(|dispatch| Stack::start(dispatch, Ports::Any).expect("free ports"));
    let gateways = stacks.each_ref().map(|stack| stack.envoy.admin_addr());
    let prometheus = Prometheus::start(&gateways);
    let queries = Query::all();
    assert!(queries.len() > 40, "only {} were found", queries.len());

    // A counter has a rate once Prometheus has seen it before and after it grew.
    traffic::send(&stacks).await;
    until_none(async || prometheus.unknown(&queries).await).await;
    traffic::send(&stacks).await;
    until_none(async || prometheus.without_numbers(&queries).await).await;

    // It would be seen if one were wrong.
    for wrong in [
        "sum(rate(ai_fallback_reqests[5m])) or vector(0)",
        r#"sum(rate(ai_fallback_requests{result="falback"}[5m])) or vector(0)"#,
        "sum by (api) (rate(ai_fallback_requests[5m]))",
    ] {
        let query = Query::new("here".to_owned(), wrong, Vec::new());
        assert_eq!(prometheus.unknown(&[query]).await.len(), 1, "{wrong}");
    }
}

/// Looks again until nothing is wrong.
async fn until_none(look: impl AsyncFn() -> Vec<String>) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let problems = look().await;
        if problems.is_empty() {
            return;
        }
        let shown = problems.join("\n");
        assert!(Instant::now() < deadline, "still after {LIMIT:?}:\n{shown}");
        tokio::time::sleep(POLL).await;
    }
}

#[test]
fn prometheus_takes_the_scrape_configuration() {
    prometheus::check(&files::path(files::SCRAPE));
}

#[test]
fn it_goes_to_the_admin_address_of_the_examples() {
    let scrape = files::yaml(files::SCRAPE);
    let target = &scrape["scrape_configs"][0]["static_configs"][0]["targets"][0];
    for example in ["envoy/callout.yaml", "envoy/router.yaml"] {
        let admin = &files::yaml(example)["admin"]["address"]["socket_address"];
        let admin = format!(
            "{}:{}",
            admin["address"].as_str().unwrap(),
            admin["port_value"]
        );
        assert_eq!(*target, Value::from(admin), "{example}");
    }
}

#[test]
fn both_examples_make_the_same_labels() {
    let [callout, router] = ["envoy/callout.yaml", "envoy/router.yaml"]
        .map(|example| files::yaml(example)["stats_config"].clone());
    assert!(callout.is_object());
    assert_eq!(callout, router);
}

#[test]
fn every_panel_says_what_it_shows_and_has_its_own_place() {
    let mut taken = Vec::new();
    let mut titles = Vec::new();
    for panel in files::panels() {
        let title = panel["title"].as_str().expect("a title").to_owned();
        assert!(!titles.contains(&title), "two are called {title}");
        let place =
            ["x", "y", "w", "h"].map(|field| panel["gridPos"][field].as_u64().expect(&title));
        let [x, y, wide, high] = place;
        assert!(x + wide <= 24, "{title} is too wide");
        for row in y..y + high {
            for column in x..x + wide {
                assert!(!taken.contains(&(row, column)), "{title} lies on another");
                taken.push((row, column));
            }
        }
        if panel["type"] != "row" {
            for field in [
                "/description",
                "/fieldConfig/defaults/unit",
                "/targets/0/expr",
            ] {
                let text = panel.pointer(field).and_then(Value::as_str);
                assert!(
                    text.is_some_and(|text| !text.is_empty()),
                    "{title}: {field}"
                );
            }
        }
        titles.push(title);
    }
    assert!(titles.len() > 30, "only {} panels", titles.len());
}
