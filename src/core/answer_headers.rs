//! The headers of an answer that takes the place of a failed one, in `dispatch: callout`.
//!
//! The failed answer came along Envoy's route, and the gateway has added headers to it on the way: those of the route and
//! the virtual host, of CORS and the like. The answer of a callout has none of them, so they are kept.

use super::fit::Header;

/// Envoy's router adds this one to what a service has said, and after it those of the route and the virtual host; the
/// filters behind ours add theirs after that. So what stands behind it is the gateway's own (Envoy 1.36, 1.39 and 1.40).
///
/// Where the service has sent this header itself, it stays where it stood, and more of the service's own stand behind it.
const ROUTERS_MARK: &str = "x-envoy-upstream-service-time";

/// What a service sends with each answer, and no route adds: behind the mark they show that it was the service's own.
const OF_SERVICES: [&str; 6] = [
    "content-length",
    "content-type",
    "date",
    "server",
    "set-cookie",
    "transfer-encoding",
];

/// What a gateway says for all of its services, also against what a service says itself.
const OF_THE_GATEWAY: [&str; 1] = ["access-control-"];

/// What describes the failed answer, wherever it stands.
const OF_THE_ANSWER: [&str; 15] = [
    ":",
    "cache-control",
    "content-",
    "date",
    "etag",
    "location",
    "proxy-authenticate",
    "retry-after",
    "server",
    "set-cookie",
    "transfer-encoding",
    "www-authenticate",
    "x-ai-fallback-",
    "x-envoy-",
    "x-ratelimit-",
];

fn starts(name: &str, list: &[&str]) -> bool {
    list.iter().any(|start| name.starts_with(start))
}

/// Puts the headers that the gateway has added to the failed answer to those of the new one. `is_envoys`: Envoy itself has
/// made the failed answer, so that no header of it is of a service.
pub fn keep_of_gateway(answer: &mut Vec<Header>, failed: Vec<Header>, is_envoys: bool) {
    let mark = failed.iter().position(|(name, _)| name == ROUTERS_MARK);
    let mark = mark.filter(|mark| {
        let mut behind = failed.iter().skip(*mark);
        !behind.any(|(name, _)| OF_SERVICES.contains(&name.as_str()))
    });
    let first = if is_envoys { Some(0) } else { mark };
    let mut kept: Vec<Header> = Vec::new();
    for (at, (name, value)) in failed.into_iter().enumerate() {
        let is_added = first.is_some_and(|first| at >= first) || starts(&name, &OF_THE_GATEWAY);
        if is_added && !starts(&name, &OF_THE_ANSWER) {
            kept.push((name, value));
        }
    }
    answer.retain(|(name, _)| {
        !starts(name, &OF_THE_GATEWAY) || kept.iter().all(|(other, _)| other != name)
    });
    kept.retain(|(name, _)| answer.iter().all(|(other, _)| other != name));
    answer.append(&mut kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(names: &[(&str, &str)]) -> Vec<Header> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
        names.iter().map(owned).collect()
    }

    fn failed() -> Vec<Header> {
        headers(&[
            (":status", "503"),
            ("content-type", "text/plain"),
            ("x-region", "of a"),
            ("x-secret", "of a"),
            ("x-envoy-upstream-service-time", "4"),
            ("x-route", "1"),
            ("x-route", "2"),
            ("x-region", "of the gateway"),
            ("retry-after", "9"),
            ("access-control-allow-origin", "https://app.example"),
        ])
    }

    fn kept(failed: Vec<Header>, is_envoys: bool) -> Vec<Header> {
        let mut answer = headers(&[
            ("content-type", "application/json"),
            ("access-control-allow-origin", "*"),
            ("x-region", "of b"),
        ]);
        keep_of_gateway(&mut answer, failed, is_envoys);
        answer
    }

    #[test]
    fn what_the_gateway_has_added_stays_and_what_the_failed_service_said_does_not() {
        let expected = headers(&[
            ("content-type", "application/json"),
            ("x-region", "of b"),
            ("x-route", "1"),
            ("x-route", "2"),
            ("access-control-allow-origin", "https://app.example"),
        ]);
        assert_eq!(kept(failed(), false), expected);
    }

    #[test]
    fn without_the_mark_of_the_router_only_cors_is_known_to_be_the_gateways() {
        let mut failed = failed();
        failed.retain(|(name, _)| name != ROUTERS_MARK);
        let names: Vec<String> = kept(failed, false)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(
            names,
            ["content-type", "x-region", "access-control-allow-origin"]
        );
    }

    #[test]
    fn a_mark_that_the_service_has_sent_itself_is_none() {
        let mut failed = failed();
        failed.rotate_right(1);
        let at = failed
            .iter()
            .position(|(name, _)| name == ROUTERS_MARK)
            .unwrap();
        failed.insert(at + 1, ("set-cookie".to_owned(), b"of a".to_vec()));
        failed.insert(at + 2, ("x-leak".to_owned(), b"of a".to_vec()));
        let names: Vec<String> = kept(failed, false)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(
            names,
            ["content-type", "x-region", "access-control-allow-origin"]
        );
    }

    #[test]
    fn an_answer_of_envoy_itself_has_no_header_of_a_service() {
        let failed = headers(&[
            ("x-route", "1"),
            ("content-length", "7"),
            ("server", "envoy"),
        ]);
        assert!(kept(failed, true).contains(&("x-route".to_owned(), b"1".to_vec())));
    }
}
