//! The text of a policy: pure, and as strict as containers/image, where a typing error must not open a door.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Component, Path};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// No policy is larger than this, in bytes.
pub const MAX_BYTES: u64 = 4 << 20;

/// What a policy says: requirements of every image in a scope.
#[derive(Debug, PartialEq, Eq)]
pub struct Rules {
    /// Of images that nothing else is said of.
    pub default: Vec<Requirement>,
    /// By transport, then by scope; the empty scope stands for the whole transport.
    pub transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// What an image must be. It must be all that is required of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    InsecureAcceptAnything,
    Reject,
    /// Signed, in the way that has this name.
    Signature(&'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    default: Vec<RawRequirement>,
    #[serde(default)]
    transports: Unique<Unique<Vec<RawRequirement>>>,
}

#[derive(Deserialize)]
struct RawRequirement {
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    others: Unique<IgnoredAny>,
}

/// An object in which no key is there twice.
struct Unique<V>(BTreeMap<String, V>);

/// The kinds of requirements, and what each says beside its kind.
const KINDS: [(&str, Requirement, &[&str]); 5] = [
    ("insecureAcceptAnything", Requirement::InsecureAcceptAnything, &[]),
    ("reject", Requirement::Reject, &[]),
    (
        "signedBy",
        Requirement::Signature("signedBy"),
        &["keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"],
    ),
    (
        "signedBaseLayer",
        Requirement::Signature("signedBaseLayer"),
        &["baseLayerIdentity"],
    ),
    (
        "sigstoreSigned",
        Requirement::Signature("sigstoreSigned"),
        &[
            "keyPath",
            "keyPaths",
            "keyData",
            "keyDatas",
            "fulcio",
            "pki",
            "rekorPublicKeyPath",
            "rekorPublicKeyPaths",
            "rekorPublicKeyData",
            "rekorPublicKeyDatas",
            "signedIdentity",
        ],
    ),
];

pub fn parse(bytes: &[u8]) -> Result<Rules> {
    ensure!(
        bytes.len() as u64 <= MAX_BYTES,
        "it is larger than {} MiB",
        MAX_BYTES >> 20
    );
    let raw: RawPolicy = serde_json::from_slice(bytes)?;
    let transports = raw.transports.0.into_iter().map(|(transport, scopes)| {
        let scopes = scopes.0.into_iter().map(|(scope, raw)| {
            check_scope(&transport, &scope)?;
            let requirements = requirements(raw).with_context(|| format!("at {transport} {scope:?}"))?;
            Ok((scope, requirements))
        });
        let scopes = scopes.collect::<Result<_>>()?;
        Ok((transport, scopes))
    });
    Ok(Rules {
        transports: transports.collect::<Result<_>>()?,
        default: requirements(raw.default).context("at default")?,
    })
}

fn requirements(raw: Vec<RawRequirement>) -> Result<Vec<Requirement>> {
    ensure!(
        !raw.is_empty(),
        "it has no requirement: write insecureAcceptAnything if that is meant"
    );
    raw.iter().map(requirement).collect()
}

fn requirement(raw: &RawRequirement) -> Result<Requirement> {
    let Some((kind, requirement, known)) = KINDS.iter().find(|(kind, ..)| *kind == raw.kind) else {
        bail!("the requirement {:?} is unknown", raw.kind);
    };
    if let Some(key) = raw.others.0.keys().find(|key| !known.contains(&key.as_str())) {
        bail!("{kind} has an unknown key {key:?}");
    }
    Ok(*requirement)
}

/// A scope that can never match is a typing error. Of transports that are not ours nothing is known.
fn check_scope(transport: &str, scope: &str) -> Result<()> {
    let valid = match transport {
        "oci" | "oci-archive" => scope.is_empty() || is_plain_path(scope),
        "docker-archive" => scope.is_empty(),
        _ => true,
    };
    ensure!(valid, "{scope:?} is not a scope of {transport}");
    Ok(())
}

/// Whether this is an absolute path below `/` as it is written when nothing is superfluous.
fn is_plain_path(scope: &str) -> bool {
    let names = Path::new(scope).components().skip(1);
    let plain = names.map(|component| match component {
        Component::Normal(name) => format!("/{}", name.to_string_lossy()),
        _ => String::new(),
    });
    scope.len() > 1 && plain.collect::<String>() == scope
}

impl<V> Default for Unique<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor(PhantomData))
    }
}

struct UniqueVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueVisitor<V> {
    type Value = Unique<V>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut unique = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry::<String, V>()? {
            if unique.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} appears twice")));
            }
            unique.insert(key, value);
        }
        Ok(Unique(unique))
    }
}
