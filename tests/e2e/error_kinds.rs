//! What a service says of its error: which errors are failures, and who is tried after them.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::client::{Answer, Ask};
use crate::world::{Short, World, case};

both_modes![
    availability_is_what_another_service_may_do_better,
    any_is_every_failure,
    a_preset_may_stand_in_a_list,
    an_error_in_on_errors_falls_back_whatever_its_status,
    an_error_that_is_not_in_on_errors_is_the_answer,
    an_error_in_except_errors_is_the_answer_whatever_its_status,
    an_error_of_a_kind_goes_to_its_own_services_first,
    after_another_error_the_services_of_a_kind_are_not_tried,
    when_the_services_of_a_kind_fail_the_others_follow,
    each_error_of_a_kind_goes_to_what_is_left_for_it,
    an_error_of_a_fallback_service_has_a_kind_too,
    a_service_and_model_that_failed_is_not_tried_again_for_a_kind,
    where_services_of_a_kind_are_used_up_its_error_is_the_answer,
    the_first_event_of_a_stream_has_a_kind,
    an_error_event_in_except_errors_is_the_answer,
    the_errors_of_anthropic_have_kinds,
    a_huge_error_body_is_read_at_its_start_and_passed_on_whole,
    an_error_body_that_stalls_is_no_answer_in_time,
    an_error_body_that_comes_slowly_is_read_to_its_end,
    an_error_body_that_breaks_off_in_json_is_read_so_far,
    an_error_body_that_says_nothing_is_judged_by_its_status,
    a_compressed_error_body_reaches_the_client_as_it_came,
    an_answer_of_the_gateway_is_not_read,
    without_rules_for_errors_no_body_is_read,
];

callout_only![
    "Envoy answers past all filters when a held answer breaks": an_error_body_of_the_primary_that_is_cut_is_answered_by_envoy,
];

router_only![
    "the router sees the reset": an_error_body_that_is_cut_falls_back,
];

const TOO_LONG: &str = "400,code=context_length_exceeded";

pub fn model_apis(short: Short) -> Vec<Value> {
    let from_alpha =
        |fallback: Value| json!({"primary": {"service": "alpha"}, "fallback": fallback});
    let rules = json!({
        "services": [{"service": "beta"}],
        "on_status": "availability",
        "on_errors": ["quota", "model_not_found", "overloaded", "billing_*", "1234", "content_policy"],
        "except_errors": ["content_policy", "invalid_api_*", "server_busy"],
        "error_services": {
            "context_length": [{"service": "gamma", "model": "long"}],
            "content_policy": [{"service": "gamma"}],
        },
    });
    let mut with_timeout = rules.clone();
    with_timeout["request_timeout_ms"] = short.into();
    vec![
        case(
            "availability",
            from_alpha(json!({"services": [{"service": "beta"}], "on_status": "availability"})),
        ),
        case(
            "any-error",
            from_alpha(json!({"services": [{"service": "beta"}], "on_status": "any"})),
        ),
        case(
            "preset-in-list",
            from_alpha(
                json!({"services": [{"service": "beta"}], "on_status": ["availability", 404]}),
            ),
        ),
        case("errors", from_alpha(rules)),
        case("errors-in-time", from_alpha(with_timeout)),
        case(
            "errors-any",
            from_alpha(json!({"services": [{"service": "beta"}], "except_errors": ["quota"]})),
        ),
        case(
            "long-prompts",
            from_alpha(json!({
                "services": [{"service": "beta"}],
                "on_status": "availability",
                "error_services": {
                    "context_length": [
                        {"service": "alpha"},
                        {"service": "gamma", "model": "long", "priority": 1},
                        {"service": "alpha", "model": "longer"},
                    ],
                    "quota": [{"service": "gamma"}],
                },
            })),
        ),
        case(
            "only-of-a-kind",
            from_alpha(json!({
                "services": [{"service": "alpha"}],
                "on_status": "availability",
                "error_services": {"context_length": [{"service": "gamma", "model": "long"}]},
            })),
        ),
    ]
}

/// The same for a whole answer and a stream: an error status has no events.
async fn both_ways(world: &World, case: &str, faults: &[(&str, &str)]) -> [Answer; 2] {
    let ask = |ask: Ask| {
        faults
            .iter()
            .fold(ask, |ask, (service, fault)| ask.fault(service, fault))
    };
    let (whole, stream) = tokio::join!(
        ask(world.ask(case)).send(),
        ask(world.ask(case).stream()).send(),
    );
    [whole, stream]
}

async fn availability_is_what_another_service_may_do_better(world: &World) {
    join_all(
        [408, 425, 429, 500, 501, 503, 529, 599].map(|status| async move {
            for answer in both_ways(world, "availability", &[("alpha", &status.to_string())]).await
            {
                answer.assert_from("beta", &format!("alpha;{status}, beta;200"));
            }
        }),
    )
    .await;
    join_all(
        [400, 401, 403, 404, 409, 413, 422, 424, 426, 428, 430, 499].map(|status| async move {
            for answer in both_ways(world, "availability", &[("alpha", &status.to_string())]).await
            {
                answer.assert_failure_of("alpha", status, &format!("alpha;{status}"));
                world.no_request(&world.beta, &answer);
            }
        }),
    )
    .await;
    for (fault, outcome) in [("reset", "reset"), ("empty", "empty")] {
        for answer in both_ways(world, "availability", &[("alpha", fault)]).await {
            answer.assert_from("beta", &format!("alpha;{outcome}, beta;200"));
        }
    }
    let ask = world.ask("availability").stream();
    let answer = ask.fault("alpha", "error-event").send().await;
    answer.assert_from("beta", "alpha;stream_error, beta;200");
}

async fn any_is_every_failure(world: &World) {
    join_all(
        [400, 401, 404, 413, 422, 429, 500, 599].map(|status| async move {
            for answer in both_ways(world, "any-error", &[("alpha", &status.to_string())]).await {
                answer.assert_from("beta", &format!("alpha;{status}, beta;200"));
            }
        }),
    )
    .await;
}

async fn a_preset_may_stand_in_a_list(world: &World) {
    for status in [404, 429, 503] {
        let ask = world.ask("preset-in-list");
        let answer = ask.fault("alpha", &status.to_string()).send().await;
        answer.assert_from("beta", &format!("alpha;{status}, beta;200"));
    }
    let answer = world
        .ask("preset-in-list")
        .fault("alpha", "400")
        .send()
        .await;
    answer.assert_failure_of("alpha", 400, "alpha;400");
}

async fn an_error_in_on_errors_falls_back_whatever_its_status(world: &World) {
    let table = [
        // By kind: from a code, a type, and a message.
        ("400,code=insufficient_quota", "400;quota"),
        ("403,type=insufficient_quota", "403;quota"),
        ("402,message=Insufficient Balance", "402;quota"),
        ("404", "404;model_not_found"),
        ("400,code=model_not_found", "400;model_not_found"),
        ("400,type=overloaded_error", "400;overloaded"),
        // By code or type, where no kind is known.
        ("400,code=billing_suspended", "400"),
        ("400,type=billing_suspended", "400"),
        ("409,code=1234", "409"),
        // A kind that is not in the list is shown as well.
        ("429,code=rate_limit_exceeded", "429;rate_limit"),
        ("503,code=slow_down", "503;overloaded"),
    ];
    join_all(table.map(|(fault, outcome)| async move {
        for answer in both_ways(world, "errors", &[("alpha", fault)]).await {
            answer.assert_from("beta", &format!("alpha;{outcome}, beta;200"));
            world.no_request(&world.gamma, &answer);
        }
    }))
    .await;
}

async fn an_error_that_is_not_in_on_errors_is_the_answer(world: &World) {
    let table = [
        (400, "400,code=invalid_value", "400"),
        (400, "400,code=Billing_suspended", "400"),
        (409, "409,code=12345", "409"),
        (400, "400,code=rate_limit_exceeded", "400;rate_limit"),
    ];
    join_all(table.map(|(status, fault, outcome)| async move {
        for answer in both_ways(world, "errors", &[("alpha", fault)]).await {
            answer.assert_failure_of("alpha", status, &format!("alpha;{outcome}"));
            assert_eq!(answer.service(), Some("alpha"));
            world.no_request(&world.beta, &answer);
        }
    }))
    .await;
}

async fn an_error_in_except_errors_is_the_answer_whatever_its_status(world: &World) {
    let table = [
        // It is in `on_errors` and in `error_services` too.
        (
            400,
            "400,code=content_policy_violation",
            "400;content_policy",
        ),
        (503, "503,code=content_filter", "503;content_policy"),
        (429, "429,type=server_busy", "429;rate_limit"),
        (500, "500,code=invalid_api_version", "500"),
    ];
    join_all(table.map(|(status, fault, outcome)| async move {
        for answer in both_ways(world, "errors", &[("alpha", fault)]).await {
            answer.assert_failure_of("alpha", status, &format!("alpha;{outcome}"));
            world.no_request(&world.beta, &answer);
            world.no_request(&world.gamma, &answer);
        }
    }))
    .await;
    // Also where every status is a failure.
    let answer = world
        .ask("errors-any")
        .fault("alpha", "429,code=insufficient_quota")
        .send()
        .await;
    answer.assert_failure_of("alpha", 429, "alpha;429;quota");
    let answer = world.ask("errors-any").fault("alpha", "429").send().await;
    answer.assert_from("beta", "alpha;429;rate_limit, beta;200");
}

async fn an_error_of_a_kind_goes_to_its_own_services_first(world: &World) {
    for fault in [
        TOO_LONG,
        "413,type=exceed_context_size_error",
        "500,message=This model's maximum context length is 8192 tokens",
    ] {
        for answer in both_ways(world, "errors", &[("alpha", fault)]).await {
            let status = &fault[..3];
            answer.assert_from(
                "gamma",
                &format!("alpha;{status};context_length, gamma;200"),
            );
            let sent = world.one_request(&world.gamma, &answer);
            assert_eq!(sent.model().as_deref(), Some("long"));
            assert_eq!(
                sent.header("content-length"),
                Some(&*sent.body.len().to_string())
            );
            world.no_request(&world.beta, &answer);
        }
    }
}

async fn after_another_error_the_services_of_a_kind_are_not_tried(world: &World) {
    for fault in ["503", "reset", "429,code=insufficient_quota"] {
        for answer in both_ways(world, "errors", &[("alpha", fault), ("beta", "500")]).await {
            assert_eq!(answer.status, 500, "{answer:?}");
            assert!(answer.attempts().ends_with(", beta;500"), "{answer:?}");
            world.no_request(&world.gamma, &answer);
        }
    }
}

async fn when_the_services_of_a_kind_fail_the_others_follow(world: &World) {
    let faults = [("alpha", TOO_LONG), ("gamma", "503")];
    for answer in both_ways(world, "errors", &faults).await {
        answer.assert_from("beta", "alpha;400;context_length, gamma;503, beta;200");
        let sent = world.one_request(&world.beta, &answer);
        assert_eq!(sent.model().as_deref(), Some("gpt-4o"));
    }
}

async fn each_error_of_a_kind_goes_to_what_is_left_for_it(world: &World) {
    // For this kind gamma comes first, then alpha with a larger model; alpha as it was has failed already.
    let faults = [
        ("alpha", "times=1,400,code=context_length_exceeded"),
        ("gamma", TOO_LONG),
    ];
    for answer in both_ways(world, "long-prompts", &faults).await {
        answer.assert_from(
            "alpha",
            "alpha;400;context_length, gamma;400;context_length, alpha;200",
        );
        let models = |all: Vec<crate::mock::Received>| -> Vec<_> {
            all.iter().filter_map(|one| one.model()).collect()
        };
        assert_eq!(
            models(world.alpha.requests_with(&answer.id)),
            ["gpt-4o", "longer"]
        );
        assert_eq!(models(world.gamma.requests_with(&answer.id)), ["long"]);
        world.no_request(&world.beta, &answer);
    }
}

async fn an_error_of_a_fallback_service_has_a_kind_too(world: &World) {
    let faults = [("alpha", "503"), ("beta", TOO_LONG)];
    for answer in both_ways(world, "long-prompts", &faults).await {
        answer.assert_from("gamma", "alpha;503, beta;400;context_length, gamma;200");
        assert_eq!(
            world.one_request(&world.gamma, &answer).model().as_deref(),
            Some("long")
        );
    }
    // Of another kind: the same service with the model as it was.
    let faults = [
        ("alpha", TOO_LONG),
        ("gamma", "times=1,429,code=insufficient_quota"),
    ];
    for answer in both_ways(world, "long-prompts", &faults).await {
        answer.assert_from(
            "gamma",
            "alpha;400;context_length, gamma;429;quota, gamma;200",
        );
        assert_eq!(
            world.gamma.requests_with(&answer.id)[1].model().as_deref(),
            Some("gpt-4o")
        );
    }
}

async fn a_service_and_model_that_failed_is_not_tried_again_for_a_kind(world: &World) {
    let faults = [("alpha", TOO_LONG), ("beta", TOO_LONG), ("gamma", TOO_LONG)];
    for answer in both_ways(world, "long-prompts", &faults).await {
        let trail = "alpha;400;context_length, gamma;400;context_length, alpha;400;context_length, beta;400;context_length";
        answer.assert_failure_of("beta", 400, trail);
    }
}

async fn where_services_of_a_kind_are_used_up_its_error_is_the_answer(world: &World) {
    let faults = [
        ("alpha", TOO_LONG),
        (
            "gamma",
            "400,code=context_length_exceeded,message=gamma failed on purpose: too long",
        ),
    ];
    for answer in both_ways(world, "only-of-a-kind", &faults).await {
        answer.assert_failure_of(
            "gamma",
            400,
            "alpha;400;context_length, gamma;400;context_length",
        );
        assert_eq!(answer.service(), Some("gamma"));
    }
    let ask = world.ask("only-of-a-kind").fault("alpha", "503");
    ask.send()
        .await
        .assert_failure_of("alpha", 503, "alpha;503");
}

async fn the_first_event_of_a_stream_has_a_kind(world: &World) {
    let table = [
        (
            "/v1/chat/completions",
            "error-event,code=context_length_exceeded",
        ),
        (
            "/v1/chat/completions",
            "comments=2,gap=10,error-event,message=prompt is too long",
        ),
        (
            "/v1/messages",
            "error-event,type=invalid_request_error,message=prompt is too long: 9 tokens > 8 maximum",
        ),
        ("/v1/responses", "error-event,code=context_length_exceeded"),
    ];
    join_all(table.map(|(path, fault)| async move {
        let ask = world.ask("errors").stream().path(path);
        let answer = ask.fault("alpha", fault).send().await;
        assert_eq!(
            answer.attempts(),
            "alpha;stream_error;context_length, gamma;200"
        );
        assert_eq!(answer.service(), Some("gamma"));
        assert_eq!(
            world.one_request(&world.gamma, &answer).model().as_deref(),
            Some("long")
        );
    }))
    .await;
    // Without a word in the configuration an error event is a failure all the same.
    let ask = world.ask("errors").stream();
    let answer = ask
        .fault("alpha", "error-event,code=rate_limit_exceeded")
        .send()
        .await;
    answer.assert_from("beta", "alpha;stream_error;rate_limit, beta;200");
}

async fn an_error_event_in_except_errors_is_the_answer(world: &World) {
    for path in ["/v1/chat/completions", "/v1/responses"] {
        let ask = world.ask("errors").stream().path(path);
        let answer = ask
            .fault("alpha", "error-event,code=content_policy_violation")
            .send()
            .await;
        answer.assert_failure_of("alpha", 200, "alpha;stream_error;content_policy");
        assert_eq!(answer.service(), Some("alpha"));
        world.no_request(&world.beta, &answer);
        world.no_request(&world.gamma, &answer);
    }
}

async fn the_errors_of_anthropic_have_kinds(world: &World) {
    let table = [
        (
            "400,type=overloaded_error",
            "alpha;400;overloaded, beta;200",
        ),
        ("529", "alpha;529;overloaded, beta;200"),
        (
            "404,message=model: claude-9",
            "alpha;404;model_not_found, beta;200",
        ),
        (
            "400,message=Your credit balance is too low to access the Anthropic API.",
            "alpha;400;quota, beta;200",
        ),
        ("429", "alpha;429;rate_limit, beta;200"),
        (
            "400,message=prompt is too long: 9 tokens > 8 maximum",
            "alpha;400;context_length, gamma;200",
        ),
    ];
    join_all(table.map(|(fault, trail)| async move {
        for ask in [
            world.ask("errors").messages(),
            world.ask("errors").stream().messages(),
        ] {
            let answer = ask.fault("alpha", fault).send().await;
            let service = if trail.contains("gamma") {
                "gamma"
            } else {
                "beta"
            };
            answer.assert_from(service, trail);
        }
    }))
    .await;
    for (status, fault, outcome) in [
        (400, "400", "400"),
        (404, "404", "404"),
        (
            400,
            "400,message=alpha failed on purpose: Output blocked by content filtering policy",
            "400;content_policy",
        ),
    ] {
        let answer = world
            .ask("errors")
            .messages()
            .fault("alpha", fault)
            .send()
            .await;
        answer.assert_failure_of("alpha", status, &format!("alpha;{outcome}"));
        assert_eq!(answer.json()["type"], "error");
    }
}

/// More than the filter reads, and more than Envoy takes in headers: so the fault is in the model.
const HUGE: usize = 100_000;

fn huge_error(world: &World, fault: &str) -> Ask {
    let model = format!(
        "gpt-4o!{fault},message=alpha failed on purpose {}",
        "x".repeat(HUGE)
    );
    // What is in the model is for alpha alone.
    let ask = world
        .ask("errors")
        .fault("beta", "200")
        .fault("gamma", "200");
    ask.model(&model)
}

async fn a_huge_error_body_is_read_at_its_start_and_passed_on_whole(world: &World) {
    // The mock writes the code before the message, and the type after it.
    for pieces in ["", ",chunks=40", ",chunks=7,gap=20"] {
        let answer = huge_error(world, &format!("{TOO_LONG}{pieces}"))
            .send()
            .await;
        assert_eq!(
            answer.attempts(),
            "alpha;400;context_length, gamma;200",
            "{answer:?}"
        );
        let answer = huge_error(world, &format!("400,code=content_filter{pieces}"))
            .send()
            .await;
        answer.assert_failure_of("alpha", 400, "alpha;400;content_policy");
        assert!(
            answer.json()["error"]["message"]
                .as_str()
                .expect("text")
                .len()
                > HUGE
        );
        let answer = huge_error(world, &format!("400,type=insufficient_quota{pieces}"))
            .send()
            .await;
        answer.assert_failure_of("alpha", 400, "alpha;400");
        assert!(
            answer.json()["error"]["message"]
                .as_str()
                .expect("text")
                .len()
                > HUGE
        );
        let answer = huge_error(world, &format!("503{pieces}")).send().await;
        assert_eq!(answer.attempts(), "alpha;503, beta;200", "{answer:?}");
    }
}

async fn an_error_body_that_stalls_is_no_answer_in_time(world: &World) {
    let faults = [
        "400,silence",
        "400,chunks=3,stall=1",
        "400,chunks=3,stall=2,code=content_filter",
        "503,endless=1",
    ];
    join_all(faults.map(|fault| async move {
        for answer in both_ways(world, "errors-in-time", &[("alpha", fault)]).await {
            answer.assert_from("beta", "alpha;request_timeout, beta;200");
        }
    }))
    .await;
    // Where nothing is read, the status is enough.
    let answer = world
        .ask("any-error")
        .fault("alpha", "400,silence")
        .send()
        .await;
    answer.assert_from("beta", "alpha;400, beta;200");
}

async fn an_error_body_that_comes_slowly_is_read_to_its_end(world: &World) {
    for fault in [
        "400,type=billing_error,chunks=8,gap=60",
        "400,type=insufficient_quota,comments=5,gap=60",
    ] {
        for answer in both_ways(world, "errors", &[("alpha", fault)]).await {
            answer.assert_from("beta", "alpha;400;quota, beta;200");
        }
    }
}

async fn an_error_body_that_breaks_off_in_json_is_read_so_far(world: &World) {
    // The code is in the first half, the type in the second.
    for answer in both_ways(
        world,
        "errors",
        &[("alpha", "400,code=insufficient_quota,chunks=2,end-after=1")],
    )
    .await
    {
        answer.assert_from("beta", "alpha;400;quota, beta;200");
    }
    for answer in both_ways(
        world,
        "errors",
        &[("alpha", "400,type=insufficient_quota,chunks=2,end-after=1")],
    )
    .await
    {
        assert_eq!(answer.attempts(), "alpha;400", "{answer:?}");
        assert!(answer.text().starts_with(r#"{"error":{"#), "{answer:?}");
    }
}

async fn an_error_body_that_says_nothing_is_judged_by_its_status(world: &World) {
    let bodies = [
        "empty",
        "end-after=0",
        "body=<html>insufficient_quota</html>",
        "body=insufficient_quota",
        "body={}",
        "body=null",
        r#"body={"error":null}"#,
        r#"body={"error":{"code":["insufficient_quota"]}}"#,
    ];
    join_all(bodies.map(|body| async move {
        for answer in both_ways(world, "errors", &[("alpha", &format!("400,{body}"))]).await {
            assert_eq!(answer.attempts(), "alpha;400", "{body}: {answer:?}");
            assert_eq!(answer.status, 400);
            let sent = body.strip_prefix("body=").unwrap_or_default();
            assert_eq!(answer.text(), sent);
            world.no_request(&world.beta, &answer);
        }
        for answer in both_ways(world, "errors", &[("alpha", &format!("503,{body}"))]).await {
            answer.assert_from("beta", "alpha;503, beta;200");
        }
    }))
    .await;
}

async fn a_compressed_error_body_reaches_the_client_as_it_came(world: &World) {
    for answer in both_ways(
        world,
        "errors",
        &[("alpha", "400,gzip,code=insufficient_quota")],
    )
    .await
    {
        assert_eq!(answer.attempts(), "alpha;400", "{answer:?}");
        assert_eq!(answer.header("content-encoding"), Some("gzip"));
        let mut text = String::new();
        let unpacked = std::io::Read::read_to_string(
            &mut flate2::read::GzDecoder::new(&answer.body[..]),
            &mut text,
        );
        unpacked.expect("gzip");
        assert!(text.contains("alpha failed on purpose"), "{text}");
    }
    for answer in both_ways(world, "errors", &[("alpha", "503,gzip")]).await {
        answer.assert_from("beta", "alpha;503, beta;200");
    }
}

async fn an_answer_of_the_gateway_is_not_read(world: &World) {
    for (status, trail) in [
        (503, "alpha;intercepted, beta;200"),
        (400, "alpha;intercepted"),
    ] {
        // Envoy's fault filter answers with a text.
        let ask = world
            .ask("errors")
            .header("x-envoy-fault-abort-request", &status.to_string());
        assert_eq!(ask.send().await.attempts(), trail);
    }
}

async fn without_rules_for_errors_no_body_is_read(world: &World) {
    for answer in both_ways(world, "any-error", &[("alpha", TOO_LONG)]).await {
        answer.assert_from("beta", "alpha;400, beta;200");
    }
    let ask = world
        .ask("any-error")
        .stream()
        .fault("alpha", "error-event,code=context_length_exceeded");
    ask.send()
        .await
        .assert_from("beta", "alpha;stream_error, beta;200");
}

async fn an_error_body_of_the_primary_that_is_cut_is_answered_by_envoy(world: &World) {
    for answer in both_ways(world, "errors", &[("alpha", "400,chunks=3,cut=1")]).await {
        assert_eq!(answer.status, 502);
        assert_eq!(answer.attempts(), "");
        world.no_request(&world.beta, &answer);
    }
    // That of a fallback service is a transport failure.
    let faults = [("alpha", "503"), ("beta", "400,chunks=3,cut=1")];
    for answer in both_ways(world, "errors", &faults).await {
        assert_eq!(answer.attempts(), "alpha;503, beta;reset");
        assert_eq!(answer.status, 502);
    }
}

async fn an_error_body_that_is_cut_falls_back(world: &World) {
    for fault in [
        "400,chunks=3,cut=1",
        "400,chunks=3,gate=1,reset-after=1",
        "400,reset-after=0",
    ] {
        let ask = world.ask("errors").fault("alpha", fault);
        world.alpha.open_gate(&ask.id);
        ask.send()
            .await
            .assert_from("beta", "alpha;reset, beta;200");
    }
}
