//! The normal forms of a path: what a filter or a service behind this one may make of it before it looks at it.

use super::credentials::percent_decoded;

/// The most times that a path is decoded: who encodes it more often is not understood by anybody.
const MAX_ROUNDS: usize = 4;

/// What a path without its query may become: with its escapes decoded, `\\` as `/`, without parameters (`;a=b`), without
/// empty segments, `.` and `..`; with and without a `/` at its end. None where that is the path itself.
#[must_use]
pub fn normal_paths(path_and_query: &[u8]) -> Vec<Vec<u8>> {
    let path = path_and_query.split(|&byte| byte == b'?').next();
    let path = path.unwrap_or_default();
    let mut decoded = path.to_vec();
    for _ in 0..MAX_ROUNDS {
        decoded = percent_decoded(&decoded).into_owned();
    }
    let end = decoded.iter().position(|byte| b"?#".contains(byte));
    decoded.truncate(end.unwrap_or(decoded.len()));
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|byte| b"/\\".contains(byte)) {
        let name = segment.split(|&byte| byte == b';').next();
        match name.unwrap_or_default() {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    let normal = [b"/", segments.join(&b'/').as_slice()].concat();
    let with_slash = [normal.as_slice(), b"/"].concat();
    let all = [normal, with_slash];
    all.into_iter().filter(|normal| normal != path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_path_has_the_same_normal_form() {
        for path in [
            "//v1/chat",
            "/v1//chat",
            "/v1/./chat",
            "/x/../v1/chat",
            "/v1/%63hat",
            "/v1/%2563hat?a=b",
            "/v1%2Fchat",
            "/v1/chat;a=b",
            "/v1;x/chat",
            "/v1\\chat",
            "/v1%5cchat",
            "/v1/chat/",
            "/../../v1/chat/",
            "/v1/chat%3Fx",
        ] {
            let normal = normal_paths(path.as_bytes());
            assert!(normal.contains(&b"/v1/chat".to_vec()), "{path}");
        }
        assert_eq!(normal_paths(b"/v1/chat?a=//b"), [b"/v1/chat/"]);
        assert_eq!(normal_paths(b""), [b"/".to_vec(), b"//".to_vec()]);
        assert_eq!(normal_paths(b"*"), [b"/*".to_vec(), b"/*/".to_vec()]);
    }
}
