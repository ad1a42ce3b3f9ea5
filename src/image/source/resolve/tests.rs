//! Images of every shape, from documents in memory.

use std::collections::HashMap;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, stream};
use serde_json::{Value, json};

use super::*;
use crate::image::source::{BlobStream, RawDocument};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Documents and blobs by digest; the last document has the tag.
#[derive(Default)]
struct Memory {
    documents: HashMap<String, Vec<u8>>,
    tagged: String,
}

impl Memory {
    /// Keeps a document, and gives the entry for it in an index.
    fn add(&mut self, media_type: &str, document: &Value) -> Value {
        let bytes = document.to_string().into_bytes();
        self.tagged = digest::sha256(&bytes).to_string();
        let entry = json!({ "mediaType": media_type, "size": bytes.len(), "digest": self.tagged });
        self.documents.insert(self.tagged.clone(), bytes);
        entry
    }

    /// An image without layers.
    fn image(&mut self, architecture: &str) -> Value {
        let rootfs = json!({ "type": "layers", "diff_ids": [] });
        let config = json!({ "os": "linux", "architecture": architecture, "config": {}, "rootfs": rootfs });
        let config = self.add(CONFIG, &config);
        self.add(
            MANIFEST,
            &json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [] }),
        )
    }

    fn index(&mut self, entries: &[Value]) -> Value {
        self.add(
            INDEX,
            &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }),
        )
    }

    async fn resolve(&self, platform: &str) -> Result<String, String> {
        let reference = "reg.lab/os:1".parse().unwrap();
        let image = resolve(self, &reference, &platform.parse().unwrap()).await;
        image
            .map(|image| image.platform.to_string())
            .map_err(|error| format!("{error:#}"))
    }
}

impl Source for Memory {
    fn document<'a>(&'a self, selector: &'a Selector) -> BoxFuture<'a, Result<RawDocument>> {
        let key = match selector {
            Selector::Tag(_) => self.tagged.clone(),
            Selector::Digest(digest) => digest.to_string(),
        };
        let bytes = self.documents[&key].clone();
        async move {
            Ok(RawDocument {
                bytes,
                content_type: None,
            })
        }
        .boxed()
    }

    fn blob<'a>(&'a self, blob: &'a Descriptor, _: u64) -> BoxFuture<'a, Result<BlobStream>> {
        let bytes = self.documents[&blob.digest().to_string()].clone();
        async move { Ok(stream::iter([Ok(bytes.into())]).boxed()) }.boxed()
    }
}

fn with_platform(mut entry: Value, os: &str, architecture: &str) -> Value {
    entry["platform"] = json!({ "os": os, "architecture": architecture });
    entry
}

#[tokio::test]
async fn an_image_is_found_in_indexes_of_indexes() {
    let mut memory = Memory::default();
    let arm = with_platform(memory.image("arm64"), "linux", "arm64");
    let amd = with_platform(memory.image("amd64"), "linux", "amd64");
    let attestation = with_platform(memory.image("unknown"), "unknown", "unknown");
    let first = memory.index(&[attestation, arm]);
    let labelled = with_platform(memory.index(&[amd]), "linux", "amd64");
    let second = memory.index(&[labelled]);
    // Neither of the two says what it is for.
    memory.index(&[first, second]);
    for (platform, expected) in [("linux/amd64", "linux/amd64"), ("linux/arm64", "linux/arm64")] {
        assert_eq!(memory.resolve(platform).await.as_deref(), Ok(expected));
    }
    let error = memory.resolve("linux/s390x").await.unwrap_err();
    assert!(error.contains("has no manifest for linux/s390x"), "{error}");
}

#[tokio::test]
async fn neither_depth_nor_number_is_without_end() {
    let mut memory = Memory::default();
    let mut entry = with_platform(memory.image("amd64"), "linux", "amd64");
    for depth in 1..=MAX_DEPTH + 1 {
        entry = memory.index(&[entry]);
        assert_eq!(
            memory.resolve("linux/amd64").await.is_ok(),
            depth <= MAX_DEPTH,
            "{depth}"
        );
    }
    let error = memory.resolve("linux/amd64").await.unwrap_err();
    assert!(error.contains("more than 4 deep"), "{error}");

    let mut memory = Memory::default();
    let empty: Vec<Value> = (0..2 * MAX_DOCUMENTS)
        .map(|number| {
            let annotations = json!({ "number": number.to_string() });
            memory.add(
                INDEX,
                &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": annotations }),
            )
        })
        .collect();
    memory.index(&empty);
    let error = memory.resolve("linux/amd64").await.unwrap_err();
    assert!(error.contains("more than 32 indexes"), "{error}");
}

#[tokio::test]
async fn a_manifest_that_is_none_is_said() {
    for (document, expected) in [
        (json!({ "schemaVersion": 1, "fsLayers": [] }), "Docker's schema 1"),
        (
            json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.artifact.manifest.v1+json" }),
            "neither an image manifest nor an index",
        ),
    ] {
        let mut memory = Memory::default();
        memory.add(MANIFEST, &document);
        let error = memory.resolve("linux/amd64").await.unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
