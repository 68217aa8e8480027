//! The files that are tested.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub const SCRAPE: &str = "envoy/observability/prometheus.yml";
pub const DASHBOARD: &str = "envoy/observability/dashboard.json";
pub const PAGE: &str = "docs/observability.md";

/// Where a file of the project is.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn dashboard() -> Value {
    serde_json::from_str(&text(DASHBOARD)).unwrap_or_else(|error| panic!("{DASHBOARD}: {error}"))
}

/// All panels of the dashboard, and the headings of its rows.
pub fn panels() -> Vec<Value> {
    dashboard()["panels"].as_array().expect("panels").clone()
}
