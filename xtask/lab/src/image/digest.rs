//! What content is named by.

use std::fmt;

use anyhow::{Context, Result};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let hex: String = Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self(format!("sha256:{hex}"))
    }

    /// The part after the colon.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The digest that a descriptor names.
    pub fn in_descriptor(descriptor: &Value) -> Result<Self> {
        let text = descriptor["digest"]
            .as_str()
            .context("a descriptor has no digest")?;
        Ok(Self(text.to_string()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
