//! Manifests and indexes: untrusted bytes, parsed and bounded (image-spec `manifest.md`, `image-index.md`).

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;

use super::media_type::{self, DocumentKind};
use super::one_line;
use super::platform::Platform;

/// The largest manifest or index that is read, in bytes; registries are told to accept 4 MiB
/// (distribution-spec).
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;
/// The largest image config that is read, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// This many platforms are named in an error.
const MAX_NAMED: usize = 20;

/// A parsed document of either kind.
#[derive(Debug)]
pub enum Document {
    Manifest(Box<ImageManifest>),
    Index(Box<ImageIndex>),
}

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest is larger than {} MiB", MAX_DOCUMENT_BYTES >> 20)]
    TooLarge,
    #[error("the manifest has Docker's schema 1, whose layers cannot be verified: push the image again")]
    Schema1,
    #[error("media type {0:?} is neither an image manifest nor an index")]
    UnknownMediaType(String),
    #[error("the manifest cannot be read: {0}")]
    Malformed(String),
    #[error("the image has no manifest for {wanted}; it has {available}: choose one with --platform")]
    NoPlatform { wanted: Platform, available: String },
}

/// The fields that say what a document is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
}

/// Parses a manifest or an index. `content_type` is what the source called it; the document's own `mediaType`
/// wins.
pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Document, ManifestError> {
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(ManifestError::TooLarge);
    }
    let malformed = |error: &dyn std::fmt::Display| ManifestError::Malformed(one_line(error));
    let head: Head = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
    if head.schema_version == 1 {
        return Err(ManifestError::Schema1);
    }
    match kind(&head, content_type)? {
        DocumentKind::Manifest => {
            ImageManifest::from_reader(bytes).map(|manifest| Document::Manifest(Box::new(manifest)))
        }
        DocumentKind::Index => ImageIndex::from_reader(bytes).map(|index| Document::Index(Box::new(index))),
    }
    .map_err(|error| malformed(&error))
}

fn kind(head: &Head, content_type: Option<&str>) -> Result<DocumentKind, ManifestError> {
    let essence = content_type.map(|text| text.split(';').next().unwrap_or(text).trim());
    // Some registries and most plain file servers call every document JSON or bytes.
    let said =
        essence.filter(|text| !["application/json", "application/octet-stream", "text/plain"].contains(text));
    match head.media_type.as_deref().or(said) {
        Some(text) => media_type::document_kind(&MediaType::from(text))
            .ok_or_else(|| ManifestError::UnknownMediaType(text.into())),
        None if head.manifests.is_some() => Ok(DocumentKind::Index),
        None => Ok(DocumentKind::Manifest),
    }
}

/// The entry of `index` for `platform`: the one that suits best, the first of several. Entries without a
/// platform, or of an unknown one (attestations), are never chosen.
pub fn select<'a>(index: &'a ImageIndex, platform: &Platform) -> Result<&'a Descriptor, ManifestError> {
    let suits = |entry: &Descriptor| platform.suits(&platform_of(entry)?);
    let suiting = index.manifests().iter().filter(|entry| suits(entry).is_some());
    // Of equals the last one is the greatest.
    suiting.rev().max_by_key(|entry| suits(entry)).ok_or_else(|| {
        let mut available: Vec<String> = platforms(index).iter().map(ToString::to_string).collect();
        available.truncate(MAX_NAMED);
        ManifestError::NoPlatform {
            wanted: platform.clone(),
            available: match available.as_slice() {
                [] => "none".into(),
                names => names.join(", "),
            },
        }
    })
}

/// The platforms that an index has images for, as it names them; attestations have none.
pub fn platforms(index: &ImageIndex) -> Vec<Platform> {
    let named = index.manifests().iter().filter_map(platform_of);
    named
        .filter(|platform| platform.os.to_string() != "unknown")
        .collect()
}

fn platform_of(entry: &Descriptor) -> Option<Platform> {
    entry.platform().as_ref().map(Platform::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = r#"{"schemaVersion":2,"manifests":[
        {"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,
         "digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
         "platform":{"os":"unknown","architecture":"unknown"}},
        {"mediaType":"application/vnd.oci.image.manifest.v1+json","size":3,
         "digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
         "platform":{"os":"linux","architecture":"arm64","variant":"v8"}}]}"#;

    #[test]
    fn an_index_is_told_by_its_shape_and_chosen_from_by_platform() {
        for content_type in [
            None,
            Some("application/json"),
            Some("application/vnd.oci.image.index.v1+json; q=1"),
        ] {
            let Document::Index(index) = parse(INDEX.as_bytes(), content_type).unwrap() else {
                panic!("no index")
            };
            let entry = select(&index, &"linux/arm64".parse().unwrap()).unwrap();
            assert_eq!(entry.size(), 3);
            let error = select(&index, &"linux/s390x".parse().unwrap())
                .unwrap_err()
                .to_string();
            assert!(error.contains("it has linux/arm64/v8: choose one"), "{error}");
        }
    }

    /// An index with an entry for each of these platforms; each entry's size is its number.
    fn index_of(platforms: &[&str]) -> ImageIndex {
        let entries = platforms.iter().enumerate().map(|(size, platform)| {
            let platform: Platform = platform.parse().unwrap();
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "size": size,
                "digest": super::super::digest::sha256(b"").to_string(),
                "platform": {
                    "os": platform.os, "architecture": platform.architecture, "variant": platform.variant,
                },
            })
        });
        let text = serde_json::json!({ "schemaVersion": 2, "manifests": entries.collect::<Vec<_>>() });
        match parse(text.to_string().as_bytes(), None).unwrap() {
            Document::Index(index) => *index,
            Document::Manifest(_) => panic!("no index"),
        }
    }

    #[test]
    fn the_best_that_runs_is_chosen_the_first_of_equals() {
        let several = [
            "linux/amd64",
            "linux/amd64/v2",
            "linux/amd64/v4",
            "linux/amd64/v3",
            "linux/amd64/v3",
        ];
        for (platforms, wanted, expected) in [
            (&several[..], "linux/amd64/v1", Some(0)),
            (&several, "linux/amd64/v2", Some(1)),
            (&several, "linux/amd64/v3", Some(3)),
            (&several, "linux/amd64/v4", Some(2)),
            (&several, "linux/amd64/v9", Some(2)),
            (&["linux/amd64/v3"], "linux/amd64/v2", None),
            (&["unknown/unknown", "linux/arm64/v8"], "linux/arm64", Some(1)),
            (&["linux/arm64"], "linux/arm64/v8", Some(0)),
            (
                &["linux/arm/v7", "linux/arm64/v8", "linux/arm64"],
                "linux/arm64",
                Some(1),
            ),
            (&[], "linux/amd64", None),
        ] {
            let index = index_of(platforms);
            let chosen = select(&index, &wanted.parse().unwrap());
            assert_eq!(
                chosen.ok().map(Descriptor::size),
                expected,
                "{wanted} of {platforms:?}"
            );
        }
    }

    #[test]
    fn thousands_of_entries_make_no_novel() {
        let index = index_of(&["linux/s390x"; 15_000]);
        let error = select(&index, &"linux/amd64".parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.len() < 1000, "{} bytes", error.len());
    }

    #[test]
    fn refusals_say_why() {
        let huge = vec![b' '; MAX_DOCUMENT_BYTES + 1];
        for (bytes, content_type, expected) in [
            (huge.as_slice(), None, "larger than 4 MiB"),
            (br#"{"schemaVersion":1}"#.as_slice(), None, "schema 1"),
            (
                br#"{"schemaVersion":1,"name":"x","fsLayers":[],"signatures":[]}"#.as_slice(),
                Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
                "schema 1",
            ),
            (
                br#"{"schemaVersion":2}"#.as_slice(),
                Some("text/html"),
                "text/html",
            ),
            (br#"{"schemaVersion":2}"#.as_slice(), None, "cannot be read"),
            (b"<html>".as_slice(), None, "cannot be read"),
        ] {
            let error = parse(bytes, content_type).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
