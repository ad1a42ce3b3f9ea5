//! The header of LUKS 2 (LUKS2 On-Disk Format Specification 1.1.2): enough to tell what can unlock it. Reads
//! no key.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::digest::{Context, SHA256};
use serde::Deserialize;
use serde_json::Value;

use super::FilesystemError;
use super::bytes::{array, read_up_to, text};

const BINARY_BYTES: usize = 4096;
const MAX_HEADER_BYTES: u64 = 4 << 20;
const CHECKSUM: std::ops::Range<usize> = 448..512;

/// What unlocks a LUKS 2 volume.
#[derive(Debug, Deserialize)]
pub struct Header {
    keyslots: BTreeMap<String, Value>,
    tokens: BTreeMap<String, Token>,
}

/// A hint for programs on how to get a key.
#[derive(Debug, Deserialize)]
struct Token {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    keyslots: Vec<String>,
    /// Where clevis has the key, encrypted.
    #[serde(default)]
    jwe: Value,
}

impl Token {
    fn is_for_tpm2(&self) -> bool {
        match self.kind.as_str() {
            "systemd-tpm2" => true,
            "clevis" => self.clevis_pin().as_deref() == Some("tpm2"),
            _ => false,
        }
    }

    /// What clevis asks for the key, e.g. `tang` for a server. The protected header of the JWE (RFC 7516)
    /// says it.
    fn clevis_pin(&self) -> Option<String> {
        let header = URL_SAFE_NO_PAD.decode(self.jwe["protected"].as_str()?).ok()?;
        let header: Value = serde_json::from_slice(&header).ok()?;
        header["clevis"]["pin"].as_str().map(str::to_string)
    }
}

fn unsound(problem: impl Into<String>) -> FilesystemError {
    FilesystemError::Unsound {
        kind: "LUKS 2",
        problem: problem.into(),
    }
}

impl Header {
    /// Reads the first header of the volume that `device` begins with.
    pub fn read<R: Read + Seek>(device: &mut R) -> Result<Self, FilesystemError> {
        let mut header = read_up_to(device, 0, BINARY_BYTES)?;
        if !header.starts_with(b"LUKS\xba\xbe\0\x02") {
            return Err(unsound("no header of version 2"));
        }
        let size = u64::from_be_bytes(array(&header, 8));
        if size <= BINARY_BYTES as u64 || size > MAX_HEADER_BYTES {
            return Err(unsound(format!("its header has {size} bytes")));
        }
        let rest = read_up_to(device, BINARY_BYTES as u64, size as usize - BINARY_BYTES)?;
        header.extend(rest);
        if (header.len() as u64) < size {
            return Err(unsound("its header is cut off"));
        }
        check(&mut header)?;
        let area = &header[BINARY_BYTES..];
        let end = area.iter().position(|byte| *byte == 0).unwrap_or(area.len());
        // What is wrong is not repeated: keys are not in there, but salts are.
        serde_json::from_slice(&area[..end]).map_err(|_| unsound("its JSON area cannot be read"))
    }

    /// Whether a TPM 2.0 can unlock it: a token of systemd or clevis that names a key slot.
    pub fn has_tpm2_token(&self) -> bool {
        self.tokens.values().any(|token| {
            token.is_for_tpm2() && token.keyslots.iter().any(|slot| self.keyslots.contains_key(slot))
        })
    }
}

/// The checksum covers the header with zeros in place of the checksum.
fn check(header: &mut [u8]) -> Result<(), FilesystemError> {
    let algorithm = text(header, 72, 32).unwrap_or("nothing".into());
    // Nothing makes headers with another one.
    if algorithm != "sha256" {
        return Err(unsound(format!("its checksum is {}", algorithm.escape_debug())));
    }
    let found = header[CHECKSUM].to_vec();
    header[CHECKSUM].fill(0);
    let mut hash = Context::new(&SHA256);
    hash.update(header);
    if hash.finish().as_ref() == &found[..32] {
        Ok(())
    } else {
        Err(unsound("its header is damaged"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn volume(json: &str) -> Vec<u8> {
        let mut header = vec![0; 16384];
        header[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
        header[8..16].copy_from_slice(&16384_u64.to_be_bytes());
        header[72..78].copy_from_slice(b"sha256");
        header[4096..4096 + json.len()].copy_from_slice(json.as_bytes());
        let mut hash = Context::new(&SHA256);
        hash.update(&header);
        header[448..480].copy_from_slice(hash.finish().as_ref());
        header
    }

    #[test]
    fn a_token_must_lead_to_a_key() {
        let has_token = |tokens: &str| {
            let json = format!(r#"{{"keyslots": {{"1": {{}}}}, "tokens": {tokens}, "digests": {{}}}}"#);
            Header::read(&mut Cursor::new(volume(&json)))
                .unwrap()
                .has_tpm2_token()
        };
        let clevis = |header: &str| {
            let protected = URL_SAFE_NO_PAD.encode(header);
            format!(
                r#"{{"0": {{"type": "clevis", "keyslots": ["1"], "jwe": {{"protected": "{protected}"}}}}}}"#
            )
        };
        let tpm2 = r#"{"alg":"dir","clevis":{"pin":"tpm2","tpm2":{"hash":"sha256"}},"enc":"A256GCM"}"#;
        let tang =
            r#"{"alg":"ECDH-ES","clevis":{"pin":"tang","tang":{"url":"http://tpm2"}},"enc":"A256GCM"}"#;
        for (tokens, expected) in [
            ("{}", false),
            (&clevis(tpm2), true),
            (&clevis(tang), false),
            (&clevis("no JSON"), false),
            (
                r#"{"0": {"type": "systemd-tpm2", "keyslots": ["1"], "tpm2-blob": "AA"}}"#,
                true,
            ),
            (r#"{"0": {"type": "clevis", "keyslots": ["1"]}}"#, false),
            (r#"{"0": {"type": "systemd-tpm2", "keyslots": ["0"]}}"#, false),
            (r#"{"0": {"type": "systemd-recovery", "keyslots": ["1"]}}"#, false),
        ] {
            assert_eq!(has_token(tokens), expected, "{tokens}");
        }
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let good = volume(r#"{"keyslots": {}, "tokens": {}}"#);
        assert!(Header::read(&mut Cursor::new(&good)).is_ok());
        for offset in [0, 7, 9, 10, 14, 72, 100, 450, 4100, 16383] {
            let mut damaged = good.clone();
            damaged[offset] ^= 0x55;
            assert!(Header::read(&mut Cursor::new(damaged)).is_err(), "byte {offset}");
        }
        for length in [0, 8, 4095, 4096, 16000] {
            assert!(
                Header::read(&mut Cursor::new(&good[..length])).is_err(),
                "{length} bytes"
            );
        }
    }
}
