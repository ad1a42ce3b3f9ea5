//! What is said of failures, and what is tried again.

use super::clean::MAX_SHOWN;
use super::tls::EARLIEST_NOW;
use super::*;
use rustls::CertificateError;
use rustls::pki_types::UnixTime;

fn answer(status: u16, body: &str, credentials: Option<&str>) -> Answer {
    let (code, said) = parse_error_body(body.as_bytes());
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        code,
        said,
        redirected_to: None,
        retry_after: None,
        credentials: credentials.map(Into::into),
        token_refused: false,
    }
}

#[test]
fn answers_are_told_in_one_line_with_advice() {
    let unknown =
        r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
    let denied = r#"{"errors":[{"code":"DENIED"}]}"#;
    for (answer, expected) in [
        (
            answer(404, unknown, None),
            "answered 404 Not Found (MANIFEST_UNKNOWN: manifest unknown): there is no such image: check its \
             name and tag",
        ),
        (
            answer(401, "", None),
            "answered 401 Unauthorized: no credentials were found for it: give them with --authfile or --pull-secret",
        ),
        (
            answer(403, denied, Some("the credentials of user \"bob\"")),
            "answered 403 Forbidden (DENIED): the credentials of user \"bob\" may not read it: check them",
        ),
        (
            answer(404, "<html>nginx</html>", None),
            "answered 404 Not Found: check the image's name, and that this is a registry",
        ),
        (
            answer(404, r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#, None),
            "answered 404 Not Found (BLOB_UNKNOWN): the registry does not have it: check the image's name, \
             or push the image again",
        ),
        (
            answer(405, "", None),
            "answered 405 Method Not Allowed: check that this is a registry",
        ),
        (
            answer(502, "bad\r\n\tgateway", None),
            "answered 502 Bad Gateway (bad gateway)",
        ),
        (
            answer(599, r#"{"details":"no user"}"#, None),
            "answered 599 (no user)",
        ),
    ] {
        assert_eq!(answer.to_string(), expected);
    }
}

#[test]
fn secrets_and_novels_are_cut() {
    for (text, expected) in [
        (
            "Authorization: Bearer abc.def x",
            "Authorization: Bearer [redacted] x",
        ),
        ("basic dTpw", "basic [redacted]"),
        ("token \"eyJhbGciOi.J9.x\"", "token [redacted]"),
        (
            "at https://s3.lab/b?X-Sig=1 now",
            "at https://s3.lab/b [redacted] now",
        ),
        ("a\u{1b}[31m\nb", "a [31m b"),
    ] {
        assert_eq!(clean(text), expected);
    }
    let long = clean(&"ä".repeat(MAX_SHOWN + 1));
    assert_eq!(long.chars().count(), MAX_SHOWN + 1);
    assert!(long.ends_with('…'));
    assert_eq!(clean(&"ä".repeat(MAX_SHOWN)).chars().count(), MAX_SHOWN);
}

#[test]
fn only_what_may_pass_is_tried_again() {
    for (status, again) in [
        (400, false),
        (401, false),
        (403, false),
        (404, false),
        (408, true),
        (429, true),
        (500, true),
    ] {
        assert_eq!(
            Cause::Answered(Box::new(answer(status, "", None))).retry() != Retry::Never,
            again,
            "{status}"
        );
    }
    for (status, again) in [(501, false), (502, true), (503, true), (504, true)] {
        assert_eq!(
            Cause::Answered(Box::new(answer(status, "", None))).retry() != Retry::Never,
            again,
            "{status}"
        );
    }
    let redirected = Answer {
        redirected_to: Some("s3.lab".into()),
        ..answer(403, "", None)
    };
    assert_eq!(redirected.retry(), Retry::After(None));
    assert_eq!(
        Cause::TimedOut(Duration::from_secs(1)).retry(),
        Retry::After(None)
    );
    assert_eq!(Cause::Connection(Connection::Refused).retry(), Retry::After(None));
    assert_eq!(Cause::Connection(Connection::PlainHttp).retry(), Retry::Never);
    assert_eq!(Cause::TooLarge(1).retry(), Retry::Never);
}

#[test]
fn a_wrong_clock_is_told_from_an_old_certificate() {
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let not_yet = rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
        time: at(60),
        not_before: at(1_700_000_000),
    });
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    let text = tls_failure(&not_yet, now).to_string();
    assert!(
        text.contains("1970") && text.contains("which is wrong: set it"),
        "{text}"
    );

    let expired = rustls::Error::InvalidCertificate(CertificateError::Expired);
    let text = tls_failure(&expired, SystemTime::UNIX_EPOCH + EARLIEST_NOW).to_string();
    assert!(
        text.contains("has expired") && text.contains("01 Jan 2026"),
        "{text}"
    );
}

#[test]
fn tls_failures_say_what_to_try() {
    use CertificateError as C;
    let now = SystemTime::UNIX_EPOCH + EARLIEST_NOW;
    let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
    assert!(
        tls_failure(&plain, now)
            .to_string()
            .contains("--tls-verify=false")
    );
    for (why, expected) in [
        (C::UnknownIssuer, "--ca-cert"),
        (C::NotValidForName, "use a name that is in it"),
    ] {
        let text = tls_failure(&rustls::Error::InvalidCertificate(why), now).to_string();
        assert!(text.contains(expected), "{text}");
    }
}
