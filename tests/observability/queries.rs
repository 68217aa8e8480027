//! The queries: of the dashboard's panels and variables, and of the documentation.

use serde_json::Value;

use crate::files;

/// A query, as Prometheus is asked.
pub struct Query {
    /// Where it stands.
    pub at: String,
    pub promql: String,
    /// The labels that its results must have.
    pub labels: Vec<String>,
}

/// What Grafana puts in the place of its variables, with `All` chosen for each.
const VARIABLES: [(&str, &str); 6] = [
    ("$__rate_interval", "5m"),
    ("$__range", "5m"),
    ("$job", ".+"),
    ("$instance", ".+"),
    ("$model_api", ".+"),
    ("$model_service", ".+"),
];

impl Query {
    pub fn all() -> Vec<Query> {
        let panels = files::panels();
        let dashboard = files::dashboard();
        let variables = dashboard["templating"]["list"].as_array();
        let panels = panels.iter().flat_map(of_panel);
        let variables = variables.expect("variables").iter().filter_map(of_variable);
        panels.chain(variables).chain(of_page()).collect()
    }

    /// With Grafana's variables in it.
    pub fn new(at: String, promql: &str, labels: Vec<String>) -> Query {
        let promql = VARIABLES
            .iter()
            .fold(promql.to_owned(), |text, (name, value)| {
                text.replace(name, value)
            });
        assert!(!promql.contains('$'), "{at}: unknown variable in {promql}");
        Query { at, promql, labels }
    }

    /// The parts that name a metric, with their braces: `requests{result="failed"}`.
    pub fn selectors(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut rest = self.promql.as_str();
        while let Some(start) = rest.find(|c| is_of_word(c) || matches!(c, '"' | '[')) {
            rest = &rest[start..];
            if let Some(window) = rest.strip_prefix('[') {
                rest = after(window, ']');
            } else if let Some(text) = rest.strip_prefix('"') {
                rest = after(text, '"');
            } else {
                let (selector, next) = split_selector(rest);
                let word = selector.split('{').next().unwrap_or_default();
                let is_metric = word != selector || next.starts_with('[');
                if is_metric || word.starts_with("ai_fallback_") {
                    found.push(selector.to_owned());
                }
                rest = next;
            }
        }
        assert!(!found.is_empty(), "{}: no metric", self.at);
        found
    }

    /// The labels that it groups by.
    pub fn groups(&self) -> Vec<String> {
        let lists = self.promql.split(" by (").skip(1);
        let lists = lists.filter_map(|rest| rest.split_once(')'));
        let names = lists.flat_map(|(list, _)| list.split(','));
        names.map(|name| name.trim().to_owned()).collect()
    }
}

fn after(text: &str, end: char) -> &str {
    text.split_once(end).expect("it is closed").1
}

/// A word with the braces behind it, if any, and the rest.
fn split_selector(text: &str) -> (&str, &str) {
    let word = text.find(|c| !is_of_word(c)).unwrap_or(text.len());
    let braces = match text[word..].starts_with('{') {
        true => text[word..].find('}').expect("closed braces") + 1,
        false => 0,
    };
    (&text[..word + braces], &text[word + braces..])
}

fn is_of_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

fn of_panel(panel: &Value) -> Vec<Query> {
    let title = panel["title"].as_str().unwrap_or_default();
    let targets = panel["targets"].as_array().into_iter().flatten();
    let query = |target: &Value| {
        let legend = target["legendFormat"].as_str().unwrap_or_default();
        let labels = legend.split("{{").skip(1);
        let labels = labels.filter_map(|rest| Some(rest.split_once("}}")?.0.to_owned()));
        let promql = target["expr"].as_str().expect(title);
        Query::new(format!("panel {title}"), promql, labels.collect())
    };
    targets.map(query).collect()
}

/// `label_values(SELECTOR, LABEL)`
fn of_variable(variable: &Value) -> Option<Query> {
    let text = variable["query"]["query"].as_str()?;
    let inner = text.strip_prefix("label_values(")?.strip_suffix(')')?;
    let (selector, label) = inner.rsplit_once(", ")?;
    let at = format!("variable {}", variable["name"]);
    Some(Query::new(at, selector, vec![label.to_owned()]))
}

/// Each block ```` ```promql ```` of the page.
fn of_page() -> Vec<Query> {
    let page = files::text(files::PAGE);
    let blocks = page.split("```promql\n").skip(1);
    let blocks = blocks.map(|rest| rest.split_once("```").expect("closed blocks").0);
    let query = |promql: &str| Query::new(files::PAGE.to_owned(), promql.trim(), Vec::new());
    let queries: Vec<Query> = blocks.map(query).collect();
    assert!(queries.len() >= 5, "only {} on the page", queries.len());
    queries
}
