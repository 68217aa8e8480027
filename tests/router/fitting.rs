//! Who sees what of a request: filters behind the request filter and the route see what the client has sent, and each service
//! gets it fitted, with what those filters have changed.

use serde_json::{Value, json};

use crate::client::Ask;
use crate::mock::Received;
use crate::support::Gateway;
use crate::world::{ROUTE, World, api, start_edited};

/// Each with an authority, a path, a key and a model of its own, but for `three`.
fn services() -> Value {
    let one = |name: &str| {
        json!({
            "cluster": name,
            "authority": format!("{name}.test"),
            "path": format!("/{name}{{path}}"),
            "headers": {"authorization": format!("Bearer {name}")},
            "models": {"gpt-4o": format!("the model of {name}")},
        })
    };
    json!({"one": one("one"), "two": one("two"), "three": {"cluster": "three"}})
}

fn world(change: impl FnOnce(Gateway) -> Gateway, edit: impl FnOnce(&mut Value)) -> World {
    let apis = json!([api("fitted", json!({"service": "one"}), &["two", "three"])]);
    World::build(
        apis,
        services(),
        |_, cluster| cluster,
        |gateway| start_edited(&change(gateway), edit),
    )
}

fn ask(world: &World) -> Ask {
    world
        .ask("fitted")
        .header("host", "gw.example.com")
        .header("authorization", "Bearer of the client")
        .header("cookie", "of=client")
}

fn lua(code: &str) -> Value {
    json!({"name": "lua", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": code},
    }})
}

/// What each of the three services received, where the first two failed.
async fn all_three(world: &World, ask: Ask) -> [Received; 3] {
    let answer = ask.fault("one", "503").fault("two", "503").send().await;
    answer.assert_from("three", "one;503, two;503, three;200");
    ["one", "two", "three"].map(|name| world.one_request(name, &answer))
}

fn assert_fitted([one, two, three]: &[Received; 3]) {
    for (request, name) in [(one, "one"), (two, "two")] {
        assert_eq!(request.authority, format!("{name}.test"));
        assert_eq!(request.path, format!("/{name}/v1/chat/completions"));
        let key = format!("Bearer {name}");
        assert_eq!(request.header("authorization"), Some(&*key));
        assert_eq!(request.header("cookie"), None);
        assert_eq!(request.model(), Some(format!("the model of {name}")));
    }
    assert_eq!(three.authority, "gw.example.com");
    assert_eq!(three.path, "/v1/chat/completions");
    assert_eq!(three.header("authorization"), None);
    assert_eq!(three.header("cookie"), None);
    assert_eq!(three.model().as_deref(), Some("gpt-4o"));
}

#[tokio::test]
async fn filters_behind_see_what_the_client_has_sent() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let tell = r#"
        function envoy_on_request(request)
          local headers = request:headers()
          for name, told in pairs({[":path"] = "path", [":authority"] = "authority", authorization = "key", cookie = "cookie"}) do
            headers:replace("x-told-" .. told, headers:get(name) or "none")
          end
          local size = request:body():length()
          request:headers():replace("x-told-size", tostring(size))
        end"#;
    let world = world(|gateway| gateway.filter_after(lua(tell)), |_| {});
    let ask = ask(&world);
    let size = json!({"model": "gpt-4o", "stream": true, "messages": []})
        .to_string()
        .len();
    let all = all_three(&world, ask).await;
    assert_fitted(&all);
    for request in &all {
        for (told, value) in [
            ("path", "/v1/chat/completions"),
            ("authority", "gw.example.com"),
            ("key", "Bearer of the client"),
            ("cookie", "of=client"),
            ("size", &*size.to_string()),
        ] {
            assert_eq!(request.header(&format!("x-told-{told}")), Some(value));
        }
    }
}

/// It lets nobody through but the client, as it came.
#[tokio::test]
async fn access_control_behind_sees_what_the_client_has_sent() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let is = |name: &str, value: &str| json!({"header": {"name": name, "string_match": {"exact": value}}});
    let rbac = json!({"name": "access control", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {"action": "ALLOW", "policies": {"client": {
            "permissions": [{"and_rules": {"rules": [
                is(":path", "/v1/chat/completions"), is(":authority", "gw.example.com"),
            ]}}],
            "principals": [{"and_ids": {"ids": [
                is("authorization", "Bearer of the client"), is("cookie", "of=client"),
            ]}}],
        }}},
    }});
    let world = world(|gateway| gateway.filter_after(rbac), |_| {});
    assert_fitted(&all_three(&world, ask(&world)).await);
    for refused in [
        ask(&world).header("authorization", "Bearer one"),
        ask(&world).header("host", "one.test"),
    ] {
        let answer = refused.send().await;
        assert_eq!(
            (answer.status, &*answer.attempts()),
            (403, "one;intercepted")
        );
        assert!(world.received("two", &answer).is_empty());
    }
}

#[tokio::test]
async fn the_route_is_that_of_what_the_client_has_sent() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = world(
        |gateway| gateway,
        |envoy| {
            let route = ROUTE.strip_suffix("/route").expect("a route's action");
            let is =
                |name: &str, value: &str| json!({"name": name, "string_match": {"exact": value}});
            envoy.pointer_mut(route).expect("a route")["match"] = json!({
                "path": "/v1/chat/completions",
                "headers": [
                    is(":authority", "gw.example.com"),
                    is("authorization", "Bearer of the client"),
                    is("cookie", "of=client"),
                ],
            });
        },
    );
    let answer = ask(&world).send().await;
    answer.assert_from("one", "one;200");
    assert_fitted(&all_three(&world, ask(&world)).await);
}

/// Istio's gateways and sidecars have such virtual hosts.
#[tokio::test]
async fn a_virtual_host_with_domains_of_its_own_serves_services_of_any_authority() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let world = world(
        |gateway| gateway,
        |envoy| {
            let host = ROUTE.strip_suffix("/routes/0/route").expect("a route");
            envoy.pointer_mut(host).expect("a virtual host")["domains"] = json!(["gw.example.com"]);
        },
    );
    let answer = ask(&world).send().await;
    answer.assert_from("one", "one;200");
    assert_eq!(world.one_request("one", &answer).authority, "one.test");
    assert_fitted(&all_three(&world, ask(&world)).await);
    // There is no other virtual host.
    let other = world.ask("no-such-case").header("host", "one.test");
    assert_eq!(other.send().await.status, 404);
}

/// A guardrail that masks what must not leave, or adds to the prompt.
#[tokio::test]
async fn a_body_that_a_filter_behind_has_changed_is_what_each_service_gets() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let change = r#"
        function envoy_on_request(request)
          local body = request:body()
          local text = body:getBytes(0, body:length())
          text = string.gsub(text, "SECRET", "[masked: not for others to read]")
          body:setBytes(text)
        end"#;
    let world = world(|gateway| gateway.filter_after(lua(change)), |_| {});
    let sent = r#"{"stream": true, "messages": ["SECRET"], "model" : "gpt-4o", "n": 1}"#;
    let masked = sent.replace("SECRET", "[masked: not for others to read]");
    for http2 in [false, true] {
        let ask = ask(&world).body(sent);
        let ask = if http2 { ask.http2() } else { ask };
        let all = all_three(&world, ask).await;
        for (request, model) in all
            .iter()
            .zip(["the model of one", "the model of two", "gpt-4o"])
        {
            let body = masked.replace("gpt-4o", model);
            assert_eq!(request.body, body);
            let length = body.len().to_string();
            assert_eq!(request.header("content-length"), Some(&*length));
        }
    }
}

/// As large as it likes: the attempt filters hold it for as long as they change the model in it.
#[tokio::test]
async fn a_body_that_a_filter_behind_has_made_much_longer_is_what_each_service_gets() {
    if !crate::support::Envoy::has_router_mode() {
        return;
    }
    let grow = r#"
        function envoy_on_request(request)
          local body = request:body()
          local text = body:getBytes(0, body:length())
          body:setBytes((string.gsub(text, "x", string.rep("y", 400000))))
        end"#;
    let world = world(|gateway| gateway.filter_after(lua(grow)), |_| {});
    let sent = r#"{"stream": true, "messages": ["x"], "model": "gpt-4o"}"#;
    let all = all_three(&world, ask(&world).body(sent)).await;
    let long = sent.replace('x', &"y".repeat(400_000));
    for (request, model) in all
        .iter()
        .zip(["the model of one", "the model of two", "gpt-4o"])
    {
        assert!(request.body == long.replace("gpt-4o", model));
    }
}
