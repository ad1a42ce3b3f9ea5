//! What a registries.conf says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::image::oci::Reference;

/// The contents of a registries.conf, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistriesConf {
    /// By prefix.
    pub tables: BTreeMap<String, Table>,
    /// Where credentials are looked for; `None` where nothing is said of that.
    pub credential_helpers: Option<Vec<String>>,
}

/// A `[[registry]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Empty where the prefix has a wildcard and names aren't rewritten.
    pub location: String,
    pub insecure: bool,
    pub blocked: bool,
    pub mirrors: Vec<Mirror>,
    /// The file that it is in.
    pub file: PathBuf,
}

/// A `[[registry.mirror]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub location: String,
    pub insecure: bool,
    pub pulls: Pulls,
}

/// What a mirror is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulls {
    All,
    ByDigest,
    ByTag,
}

impl Pulls {
    /// Whether a mirror is asked for `reference`.
    pub fn allow(self, reference: &Reference) -> bool {
        match self {
            Self::All => true,
            Self::ByDigest => reference.digest().is_some(),
            Self::ByTag => reference.digest().is_none(),
        }
    }
}
