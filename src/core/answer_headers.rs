//! The headers of an answer that takes the place of a failed one, in `dispatch: callout`.
//!
//! The failed answer came along Envoy's route, and the gateway has added headers to it on the way: those of the route and
//! the virtual host, of CORS and the like. The answer of a callout has none of them. Envoy does not tell which headers
//! are the gateway's, so all stay but those that belong to the failed answer itself.

use super::fit::Header;

/// What describes the failed answer, or the service that gave it.
const OF_THE_ANSWER: [&str; 41] = [
    "accept-ranges",
    "age",
    "allow",
    "alt-svc",
    "cache-control",
    "connection",
    "date",
    "etag",
    "expires",
    "grpc-message",
    "grpc-status",
    "keep-alive",
    "last-modified",
    "link",
    "location",
    "nel",
    "pragma",
    "proxy-authenticate",
    "proxy-connection",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "server",
    "server-timing",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "warning",
    "www-authenticate",
    "x-cache",
    "x-powered-by",
    "x-request-id",
    "x-served-by",
    "x-should-retry",
    "x-trace-id",
];

/// The same, by the start of their names.
const OF_THE_SERVICE: [&str; 24] = [
    ":",
    "content-",
    "x-envoy-",
    "x-ai-",
    "x-ratelimit-",
    "ratelimit",
    "anthropic-",
    "apim-",
    "azureml-",
    "cf-",
    "cohere-",
    "fireworks-",
    "helicone-",
    "llm_provider-",
    "openai-",
    "x-amz",
    "x-dashscope-",
    "x-goog-",
    "x-groq-",
    "x-litellm-",
    "x-mistral-",
    "x-ms-",
    "x-openai-",
    "x-portkey-",
];

/// What a gateway says for all of its services: there it is right also against what a service says itself.
const OF_THE_GATEWAY: [&str; 1] = ["access-control-"];

/// Puts the headers that the gateway has added to the failed answer to those of the new one.
pub fn keep_of_gateway(answer: &mut Vec<Header>, failed: Vec<Header>) {
    let starts = |name: &str, list: &[&str]| list.iter().any(|start| name.starts_with(start));
    let mut kept = failed;
    kept.retain(|(name, _)| {
        !OF_THE_ANSWER.contains(&name.as_str()) && !starts(name, &OF_THE_SERVICE)
    });
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

    #[test]
    fn what_the_gateway_has_added_stays_and_what_the_failed_service_said_does_not() {
        let mut answer = headers(&[
            ("content-type", "application/json"),
            ("access-control-allow-origin", "*"),
            ("x-region", "of b"),
        ]);
        let failed = headers(&[
            (":status", "503"),
            ("content-type", "text/plain"),
            ("content-length", "7"),
            ("retry-after", "9"),
            ("openai-organization", "a"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("set-cookie", "host=a"),
            ("access-control-allow-origin", "https://app.example"),
            ("x-region", "of a"),
            ("strict-transport-security", "max-age=1"),
            ("x-added", "1"),
            ("x-added", "2"),
        ]);
        keep_of_gateway(&mut answer, failed);
        let expected = headers(&[
            ("content-type", "application/json"),
            ("x-region", "of b"),
            ("access-control-allow-origin", "https://app.example"),
            ("strict-transport-security", "max-age=1"),
            ("x-added", "1"),
            ("x-added", "2"),
        ]);
        assert_eq!(answer, expected);
    }
}
