//! A pull secret as Ironic hands it over (`image_pull_secret`): the `auth` of an auth.json entry, which is
//! base64 of `USER:PASSWORD`, also with one more base64 around it; `USER:PASSWORD` itself; or a token.

use std::fs::File;
use std::io::{Read, stdin};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::credentials::{Credentials, Known};

/// No secret is larger than this, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// As is written by hand and by machines, with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads a secret from a file; `-` is standard input.
pub fn read(path: &Path) -> Result<Known> {
    let doing = || format!("reading the pull secret from {}", path.display());
    let mut text = Zeroizing::new(String::new());
    let source: Box<dyn Read> = if path == Path::new("-") {
        // Not through the buffer that standard input has: it is never freed.
        Box::new(File::from(stdin().as_fd().try_clone_to_owned()?))
    } else {
        Box::new(File::open(path).with_context(doing)?)
    };
    source
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .with_context(doing)?;
    let credentials = parse(&text).with_context(doing)?;
    Ok(Known::new(
        credentials,
        &format!("the pull secret in {}", path.display()),
    ))
}

pub fn parse(text: &str) -> Result<Credentials> {
    ensure!(
        text.len() as u64 <= MAX_BYTES,
        "it is larger than {} KiB",
        MAX_BYTES >> 10
    );
    let text = text.trim();
    ensure!(!text.is_empty(), "it is empty");
    if text.starts_with('{') {
        bail!("it is a file of credentials, not a pull secret: give it with --authfile");
    }
    if let Some(pair) = Credentials::from_pair(text) {
        return Ok(pair);
    }
    let once = decoded(text);
    let twice = once.as_ref().and_then(|once| decoded(once.trim()));
    let pair = [once, twice]
        .into_iter()
        .flatten()
        .find_map(|text| Credentials::from_pair(text.trim_end()));
    if let Some(pair) = pair {
        return Ok(pair);
    }
    ensure!(
        !text.contains(char::is_whitespace),
        "it is neither USER:PASSWORD (plain or base64) nor a token"
    );
    Ok(Credentials::Bearer(Zeroizing::new(text.into())))
}

fn decoded(text: &str) -> Option<Zeroizing<String>> {
    let bytes = BASE64.decode(text).ok()?;
    String::from_utf8(bytes).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_in_which_it_comes() {
        let once = BASE64.encode("bob:s3:cret");
        let twice = BASE64.encode(&once);
        let lines = format!("{once}\n");
        for text in [
            "bob:s3:cret",
            "bob:s3:cret\n",
            &once,
            &twice,
            &lines,
            once.trim_end_matches('='),
        ] {
            assert_eq!(
                parse(text).unwrap(),
                Credentials::from_pair("bob:s3:cret").unwrap(),
                "{text}"
            );
        }
        let opaque = BASE64.encode("opaque");
        for token in ["eyJhbGciOi.J9.x-y_z", "0123abcd", &opaque] {
            let expected = Credentials::Bearer(Zeroizing::new(token.into()));
            assert_eq!(parse(token).unwrap(), expected, "{token}");
        }
    }

    #[test]
    fn what_is_none_is_refused_without_being_shown() {
        for (text, expected) in [
            ("", "is empty"),
            (r#"{"auths":{"s3cret":{}}}"#, "give it with --authfile"),
            ("s3cret words", "neither USER:PASSWORD"),
            (&"s3cret".repeat(20_000), "larger than 64 KiB"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
        }
        let error = format!("{:#}", read(Path::new("/nonexistent/secret")).unwrap_err());
        assert!(error.contains("/nonexistent/secret"), "{error}");
    }
}
