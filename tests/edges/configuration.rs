//! The filter's configuration in a real Envoy: refused with a line for each error, taken in all its forms, and changed
//! while Envoy runs.

use crate::client::{Connection, Request};
use crate::mock::Mock;
use crate::stack::{Mode, Stack, chat, chat_stream, clusters, gateway, new_id, plugin};
use crate::support::{Cluster, Envoy, Gateway, eventually};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

in_each_mode!(
    a_form_makes_no_difference,
    a_running_envoy_keeps_what_it_had_until_a_good_configuration_comes,
);

/// Each with the lines that Envoy prints for it, no more and no less.
fn bad_configurations() -> Vec<(Value, &'static [&'static str])> {
    let good = plugin();
    let with = |path: &str, value: Value| {
        let mut bad = good.clone();
        *bad.pointer_mut(path).expect("a path in the configuration") = value;
        bad
    };
    let mut many = with(
        "/services/primary",
        json!({"cluster": "", "authorty": "a.test"}),
    );
    many["max_body_bytes"] = json!("1MB");
    many["model_apis"][0]["primary"]["service"] = "primry".into();
    many["model_apis"][0]["fallback"]["request_timeout_ms"] = json!(-1);
    vec![
        (
            json!({}),
            &[
                "config: services: required field is missing (got nothing; expected an object of services by name, at least one)",
                "config: model_apis: required field is missing (got nothing; expected a list of Model APIs, at least one)",
            ],
        ),
        (
            many,
            &[
                "config: max_body_bytes: wrong type (got a string; expected an integer from 1 to 268435456)",
                "config: services.primary.authorty: unknown field (got \"authorty\"; expected one of `cluster`, `authority`, `path`, `headers`, `credentials`, `remove_headers`, `models`; did you mean `authority`?)",
                "config: services.primary.cluster: empty text (got \"\"; expected the name of an Envoy cluster)",
                "config: model_apis[0].primary.service: unknown service (got \"primry\"; expected one of \"backup\", \"primary\"; did you mean \"primary\"?)",
                "config: model_apis[0].fallback.request_timeout_ms: out of range (got -1; expected an integer from 0 to 86400000)",
            ],
        ),
        (
            with(
                "/services/backup",
                json!({"cluster": "backup", "headers": {"x-team": "${TEAM}"}}),
            ),
            &[
                "config: services.backup.headers.x-team: missing environment variable (got \"TEAM\"; expected a variable of the VM, set in `vm_config.environment_variables`)",
            ],
        ),
        (
            with("/model_apis/0/fallback", json!({"services": []})),
            &[
                "config: model_apis[0].fallback.services: empty list (got []; expected a list of services, at least one)",
            ],
        ),
        (
            with("/model_apis/0/fallback", json!({"services": [null]})),
            &[
                "config: model_apis[0].fallback.services[0]: wrong type (got null; expected an object with the field `service`)",
            ],
        ),
    ]
}

#[test]
fn a_bad_configuration_is_refused_with_a_line_for_each_error() {
    for (configuration, lines) in bad_configurations() {
        let text = configuration.to_string();
        let forms = [
            Gateway::new().plugin(configuration),
            Gateway::new().plugin_text(&text),
        ];
        for form in forms {
            assert_eq!(refusal(form), lines, "{text}");
        }
    }
}

#[test]
fn text_that_is_no_json_is_refused() {
    let end = "config: $: not valid JSON (got EOF while parsing a value at line 1 column 12; expected a JSON object)";
    let no_value =
        "config: $: not valid JSON (got expected value at line 1 column 1; expected a JSON object)";
    for (text, line) in [("{\"services\":", end), ("services: {}", no_value)] {
        assert_eq!(refusal(Gateway::new().plugin_text(text)), [line]);
    }
}

#[test]
fn the_example_of_these_tests_is_accepted() {
    complete(Gateway::new().plugin(plugin()))
        .validate()
        .expect("a good configuration");
}

/// The lines about the configuration, in order, each once: Envoy tries it in several VMs.
fn refusal(gateway: Gateway) -> Vec<String> {
    let output = complete(gateway)
        .validate()
        .expect_err("a bad configuration");
    let lines = output
        .lines()
        .filter_map(|line| line.find("config: ").map(|at| &line[at..]));
    let mut unique: Vec<String> = Vec::new();
    for line in lines {
        if !unique.iter().any(|known| known == line) {
            unique.push(line.to_owned());
        }
    }
    unique
}

fn complete(gateway: Gateway) -> Gateway {
    let nowhere = ([127, 0, 0, 1], 9).into();
    gateway
        .cluster(Cluster::new("primary", nowhere))
        .cluster(Cluster::new("backup", nowhere))
}

async fn a_form_makes_no_difference(mode: Mode) {
    let configuration = |plugin: &mut Value| {
        plugin["max_body_bytes"] = 100_000.into();
        plugin["services"]["primary"]["headers"] = json!({"x-team": "the ${TEAM} team"});
        plugin["services"]["backup"] = json!({
            "cluster": "backup",
            "authority": "backup.test",
            "path": "/to/{model}{path}",
            "credentials": "client",
            "models": {"m": "known-as"},
        });
        let fallback = &mut plugin["model_apis"][0]["fallback"];
        fallback["on_status"] = json!(["5xx", 429]);
        fallback["request_timeout_ms"] = json!(30_000.0);
    };
    let (primary, backup) = (Mock::start("primary"), Mock::start("backup"));
    let base =
        || gateway(mode, clusters(&primary, &backup), configuration).environment("TEAM", "blue");
    let mut text = plugin();
    configuration(&mut text);
    let text = serde_json::to_string_pretty(&text).unwrap();
    let mut seen = Vec::new();
    for gateway in [base(), base().plugin_text(&text)] {
        let stack = Stack::of(&gateway, primary.clone(), backup.clone());
        let id = new_id("form");
        let request = Request::chat(&id)
            .header("authorization", "Bearer mine")
            .header("x-mock-primary", "429");
        let answer = stack.ask(request.body(chat("m"))).await;
        assert_eq!(answer.attempts(), "primary;429, backup;200");
        let of = |mock: &Mock| {
            let request = &mock.requests_with(&id)[0];
            let text = |name| request.header(name).map(str::to_owned);
            let body = request.body.clone();
            (
                request.authority.clone(),
                request.path.clone(),
                text("x-team"),
                text("authorization"),
                body,
            )
        };
        seen.push((of(&primary), of(&backup)));
    }
    let mine = || Some("Bearer mine".to_owned());
    let path = "/v1/chat/completions";
    let (at_primary, at_backup) = &seen[0];
    let team = Some("the blue team".to_owned());
    let as_sent = chat("m").into_bytes().into();
    assert_eq!(
        *at_primary,
        ("gateway.test".into(), path.into(), team, None, as_sent)
    );
    let renamed = chat("known-as").into_bytes().into();
    let path = format!("/to/known-as{path}");
    assert_eq!(
        *at_backup,
        ("backup.test".into(), path, None, mine(), renamed)
    );
    assert_eq!(seen[0], seen[1]);
}

async fn a_running_envoy_keeps_what_it_had_until_a_good_configuration_comes(mode: Mode) {
    let (primary, backup) = (Mock::start("primary"), Mock::start("backup"));
    let generation = |change: fn(&mut Value)| gateway(mode, clusters(&primary, &backup), change);
    let first = generation(|plugin| {
        plugin["services"]["primary"]["headers"] = json!({"x-generation": "1"})
    });
    let bad = generation(|plugin| {
        plugin["services"]["primary"]["headers"] = json!({"x-generation": "${NONE}"})
    });
    let second = generation(|plugin| {
        plugin["services"]["primary"]["headers"] = json!({"x-generation": "2"})
    });

    let files = Resources::new();
    files.put(&first);
    let envoy = Envoy::start(&files.bootstrap(&first));
    eventually("the listener is there", || {
        envoy.counter("listener_manager.total_listeners_active") == 1
    })
    .await;
    let generation_of = async |envoy: &Envoy| {
        let id = new_id("generation");
        let answer = crate::client::ask(envoy.addr(), Request::chat(&id).body(chat("m"))).await;
        assert_eq!(answer.service(), Some("primary"), "{answer:?}");
        primary.requests_with(&id)[0]
            .header("x-generation")
            .unwrap()
            .to_owned()
    };
    assert_eq!(generation_of(&envoy).await, "1");
    let id = new_id("across");
    let mut stream = Connection::open(envoy.addr()).await;
    let request = Request::chat(&id).header("x-mock-primary", "gate=1");
    stream.send(request.body(chat_stream(&id))).await;
    stream.read_past("data: ").await;

    // The attempt filters are in the clusters, and say which headers a service gets.
    let has_filters = mode == Mode::Router;
    files.put(&bad);
    eventually("it is refused", || {
        envoy.counter("listener_manager.lds.update_rejected") == 1
            && (!has_filters || envoy.counter("cluster_manager.cds.update_rejected") == 1)
    })
    .await;
    assert!(envoy.log_contains("config: services.primary.headers.x-generation: "));
    assert_eq!(generation_of(&envoy).await, "1");

    files.put(&second);
    eventually("it is taken", || {
        envoy.counter("listener_manager.lds.update_success") == 2
            && (!has_filters || envoy.counter("cluster_manager.cds.update_success") == 2)
    })
    .await;
    eventually("it is in use", || {
        envoy.counter("listener_manager.total_listeners_warming") == 0
            && envoy.counter("cluster_manager.warming_clusters") == 0
    })
    .await;
    assert_eq!(generation_of(&envoy).await, "2");

    // What began with the first configuration ends with it.
    primary.open_gate(&id);
    stream.read_past("[DONE]").await;
    assert!(!envoy.log_contains("panicked"));
}

/// Files of listeners and clusters that Envoy watches.
struct Resources(PathBuf);

impl Resources {
    fn new() -> Resources {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(new_id("resources"));
        fs::create_dir_all(&folder).expect("a folder");
        Resources(folder)
    }

    /// Moves a gateway's listener and clusters to where Envoy sees them.
    fn put(&self, gateway: &Gateway) {
        let mut bootstrap: Value = serde_json::from_str(&gateway.render()).expect("JSON");
        for (kind, version) in [
            ("clusters", "cluster.v3.Cluster"),
            ("listeners", "listener.v3.Listener"),
        ] {
            let mut all = bootstrap["static_resources"][kind].take();
            for one in all.as_array_mut().expect("a list") {
                one["@type"] = format!("type.googleapis.com/envoy.config.{version}").into();
            }
            let part = self.file(kind).with_extension("part");
            fs::write(&part, json!({"resources": all}).to_string()).expect("a file");
            fs::rename(part, self.file(kind)).expect("the file is moved");
        }
    }

    /// The gateway's bootstrap, with its listener and clusters from the files.
    fn bootstrap(&self, gateway: &Gateway) -> String {
        let mut bootstrap: Value = serde_json::from_str(&gateway.render()).expect("JSON");
        let source = |kind| {
            json!({
                "resource_api_version": "V3",
                "path_config_source": {"path": self.file(kind)},
            })
        };
        bootstrap["static_resources"] = json!({});
        bootstrap["node"] = json!({"id": "test", "cluster": "test"});
        bootstrap["dynamic_resources"] =
            json!({"lds_config": source("listeners"), "cds_config": source("clusters")});
        bootstrap.to_string()
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.0.join(kind).with_extension("json")
    }
}

impl Drop for Resources {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
