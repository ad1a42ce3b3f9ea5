//! What a registry demands in `WWW-Authenticate` (RFC 9110, section 11.6.1; distribution's token
//! specification).

use http_auth::{ChallengeParser, ChallengeRef};
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// A demand that can be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer {
        /// The token server's URL.
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The challenge to meet among those in `headers`: a bearer token where one will do, as it hides the
    /// password from the registry; `None` when there is none of a known scheme.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let challenges: Vec<Self> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse)
            .collect();
        let bearer = challenges
            .iter()
            .find(|challenge| matches!(challenge, Self::Bearer { .. }));
        bearer.or(challenges.first()).cloned()
    }
}

/// Whether the registry says that the token it was given is none (RFC 6750, section 3.1), whatever it allows.
pub fn refuses_token(headers: &HeaderMap) -> bool {
    let values = headers.get_all(WWW_AUTHENTICATE).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| ChallengeParser::new(text).map_while(Result::ok))
        .any(|challenge| parameter(&challenge, "error").as_deref() == Some("invalid_token"))
}

/// The challenges of known schemes in one header value. What follows a syntax error is ignored.
pub fn parse(value: &str) -> Vec<Challenge> {
    ChallengeParser::new(value)
        .map_while(Result::ok)
        .filter_map(|challenge| known(&challenge))
        .collect()
}

fn parameter(challenge: &ChallengeRef<'_>, name: &str) -> Option<String> {
    let mut parameters = challenge.params.iter();
    let found = parameters.find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.to_unescaped())
}

fn known(challenge: &ChallengeRef<'_>) -> Option<Challenge> {
    let parameter = |name| parameter(challenge, name);
    if challenge.scheme.eq_ignore_ascii_case("basic") {
        Some(Challenge::Basic)
    } else if challenge.scheme.eq_ignore_ascii_case("bearer") {
        Some(Challenge::Bearer {
            realm: parameter("realm")?,
            service: parameter("service"),
            scope: parameter("scope"),
        })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        }
    }

    #[test]
    fn a_token_that_is_refused() {
        for (value, refused) in [
            (r#"Bearer realm="https://a/t",error="invalid_token""#, true),
            (
                r#"Basic realm="x", bearer realm="https://a/t", error=invalid_token"#,
                true,
            ),
            (r#"Bearer realm="https://a/t",error="insufficient_scope""#, false),
            (r#"Bearer realm="invalid_token""#, false),
        ] {
            let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value.parse().unwrap())]);
            assert_eq!(refuses_token(&headers), refused, "{value}");
        }
    }

    #[test]
    fn challenges_as_registries_send_them() {
        for (values, expected) in [
            (vec![r#"Basic realm="Registry""#], Some(Challenge::Basic)),
            (
                vec![r#"BASIC realm="x", charset="UTF-8""#],
                Some(Challenge::Basic),
            ),
            (
                vec![
                    r#"Bearer realm="https://auth.lab/t",service="reg.lab",scope="repository:a/b:pull,push""#,
                ],
                Some(bearer(
                    "https://auth.lab/t",
                    Some("reg.lab"),
                    Some("repository:a/b:pull,push"),
                )),
            ),
            (
                vec![r#"Basic realm="x", Bearer realm="https://a/t""#],
                Some(bearer("https://a/t", None, None)),
            ),
            (
                vec![r#"Basic realm="x""#, r#"bearer realm="https://a/t""#],
                Some(bearer("https://a/t", None, None)),
            ),
            (vec![r#"Bearer service="no realm""#], None),
            (vec!["Negotiate"], None),
            (vec!["Bearer realm=\"unclosed"], None),
            (vec![""], None),
            (vec![], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
            }
            assert_eq!(Challenge::from_headers(&headers), expected, "{values:?}");
        }
    }
}
