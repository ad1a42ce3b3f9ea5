//! An image: one manifest and its config, verified against their digests and joined.

use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageManifest};

use super::blob::{BlobCheck, BlobError};
use super::digest::{Hasher, UnsupportedAlgorithm};
use super::media_type::{self, Compression};
use super::one_line;
use super::platform::Platform;
use super::reference::Reference;

/// overlayfs stacks at most this many lower directories.
pub const MAX_LAYERS: usize = 500;
/// No image is larger, in bytes: what a manifest says beyond that is a lie, and sums of it overflow.
pub const MAX_IMAGE_BYTES: u64 = 1 << 44;

/// A layer: its blob in the manifest joined with its diff ID in the config.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The position in the stack, from the bottom, counted from 0.
    pub index: usize,
    pub blob: Descriptor,
    pub diff_id: Digest,
    pub compression: Compression,
}

/// An image whose manifest and config are what their digests say.
#[derive(Clone, Debug)]
pub struct Image {
    /// The name that was asked for.
    pub reference: Reference,
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest as the source has it, to the byte.
    pub manifest: Vec<u8>,
    /// The manifest's media type, as a registry must say it.
    pub manifest_media_type: String,
    /// The config's descriptor.
    pub config_descriptor: Descriptor,
    /// The config as the source has it, to the byte.
    pub config: Vec<u8>,
    /// What the image runs on.
    pub platform: Platform,
    /// The environment that the image asks for, as `KEY=VALUE`.
    pub environment: Vec<String>,
    /// The layers, from the bottom.
    pub layers: Vec<Layer>,
}

/// Why a manifest and a config make no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("the image config: {0}")]
    ConfigBlob(#[from] BlobError),
    #[error(transparent)]
    Algorithm(#[from] UnsupportedAlgorithm),
    #[error("this is not a container image but an artifact of type {0:?}")]
    Artifact(String),
    #[error("the image config cannot be read: {0}")]
    Config(String),
    #[error("the manifest has {layers} layers, the config {diff_ids} diff IDs: the image is malformed")]
    LayerCount { layers: usize, diff_ids: usize },
    #[error("the image has {0} layers, but overlayfs stacks at most {MAX_LAYERS}: squash some")]
    TooManyLayers(usize),
    #[error("the layers have more than {} TiB: the manifest is malformed", MAX_IMAGE_BYTES >> 40)]
    TooLarge,
    #[error("layer {index} has media type {media_type:?}, which cannot be unpacked")]
    LayerMediaType { index: usize, media_type: String },
    #[error("the image is for {found}, not for {wanted}: choose another tag, or use --platform {found}")]
    Platform {
        found: Box<Platform>,
        wanted: Box<Platform>,
    },
}

impl Image {
    /// Joins a manifest with its config. The caller has checked `manifest` against `digest`; the config is
    /// checked here.
    pub fn new(
        reference: Reference,
        digest: Digest,
        (manifest, parsed): (Vec<u8>, &ImageManifest),
        config: Vec<u8>,
        wanted: &Platform,
    ) -> Result<Self, ImageError> {
        let config_descriptor = parsed.config().clone();
        if !media_type::is_image_config(config_descriptor.media_type()) {
            return Err(ImageError::Artifact(config_descriptor.media_type().to_string()));
        }
        BlobCheck::new(&config_descriptor)?.whole(&config)?;
        let configuration = ImageConfiguration::from_reader(config.as_slice())
            .map_err(|error| ImageError::Config(one_line(error)))?;
        Ok(Self {
            reference,
            digest,
            manifest_media_type: manifest_media_type(parsed),
            platform: check_platform(&configuration, wanted)?,
            environment: environment(&configuration),
            layers: join(parsed.layers(), &diff_ids(&configuration)?)?,
            manifest,
            config_descriptor,
            config,
        })
    }

    /// The size of all compressed layers together, in bytes.
    pub fn compressed_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.blob.size()).sum()
    }

    /// `REGISTRY/REPOSITORY@DIGEST`: exactly this image, by its own name.
    pub fn name_by_digest(&self) -> String {
        format!("{}@{}", self.reference.name(), self.digest)
    }
}

fn check_platform(configuration: &ImageConfiguration, wanted: &Platform) -> Result<Platform, ImageError> {
    let found = Platform {
        os: configuration.os().clone(),
        architecture: configuration.architecture().clone(),
        variant: configuration.variant().clone(),
    };
    // The variant chose among an index's entries; a config seldom repeats it.
    let unsaid = Platform {
        variant: None,
        ..wanted.clone()
    };
    let asked = if found.variant.is_some() { wanted } else { &unsaid };
    if asked.suits(&found).is_none() {
        return Err(ImageError::Platform {
            found: found.into(),
            wanted: Box::new(wanted.clone()),
        });
    }
    Ok(found)
}

fn manifest_media_type(manifest: &ImageManifest) -> String {
    manifest
        .media_type()
        .as_ref()
        .map_or_else(|| media_type::ACCEPTED_MANIFESTS[0].into(), ToString::to_string)
}

fn environment(configuration: &ImageConfiguration) -> Vec<String> {
    configuration
        .config()
        .as_ref()
        .and_then(|config| config.env().clone())
        .unwrap_or_default()
}

fn diff_ids(configuration: &ImageConfiguration) -> Result<Vec<Digest>, ImageError> {
    let parse = |text: &String| {
        text.parse()
            .map_err(|error| ImageError::Config(one_line(format_args!("diff ID {text:?}: {error}"))))
    };
    configuration.rootfs().diff_ids().iter().map(parse).collect()
}

fn join(blobs: &[Descriptor], diff_ids: &[Digest]) -> Result<Vec<Layer>, ImageError> {
    if blobs.len() != diff_ids.len() {
        return Err(ImageError::LayerCount {
            layers: blobs.len(),
            diff_ids: diff_ids.len(),
        });
    }
    if blobs.len() > MAX_LAYERS {
        return Err(ImageError::TooManyLayers(blobs.len()));
    }
    let mut sizes = blobs.iter().map(Descriptor::size);
    let total = sizes.try_fold(0, u64::checked_add);
    if total.is_none_or(|total| total > MAX_IMAGE_BYTES) {
        return Err(ImageError::TooLarge);
    }
    let layer = |(index, (blob, diff_id)): (usize, (&Descriptor, &Digest))| {
        let compression =
            media_type::layer_compression(blob.media_type()).ok_or_else(|| ImageError::LayerMediaType {
                index: index + 1,
                media_type: blob.media_type().to_string(),
            })?;
        Hasher::like(blob.digest())?;
        Hasher::like(diff_id)?;
        Ok(Layer {
            index,
            blob: blob.clone(),
            diff_id: diff_id.clone(),
            compression,
        })
    };
    blobs.iter().zip(diff_ids).enumerate().map(layer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::oci::digest;
    use crate::image::oci::manifest::{self, Document};

    fn image(config: &str, layers: usize) -> Result<Image, ImageError> {
        image_of(config, layers, 7)
    }

    fn image_of(config: &str, layers: usize, size: u64) -> Result<Image, ImageError> {
        let layer = format!(
            r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":{size},"digest":"{}"}}"#,
            digest::sha256(b"layer")
        );
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","size":{},
                "digest":"{}"}},"layers":[{}]}}"#,
            config.len(),
            digest::sha256(config.as_bytes()),
            vec![layer; layers].join(",")
        );
        let Document::Manifest(parsed) = manifest::parse(text.as_bytes(), None).unwrap() else {
            panic!("an index")
        };
        let digest = digest::sha256(text.as_bytes());
        let reference = "reg.lab/web:1".parse().unwrap();
        Image::new(
            reference,
            digest,
            (text.into_bytes(), &parsed),
            config.into(),
            &"linux/amd64".parse().unwrap(),
        )
    }

    fn config(architecture: &str, diff_ids: usize) -> String {
        let ids = vec![format!("\"{}\"", digest::sha256(b"diff")); diff_ids].join(",");
        format!(
            r#"{{"os":"linux","architecture":"{architecture}","config":{{"Env":["A=b"]}},
                "rootfs":{{"type":"layers","diff_ids":[{ids}]}}}}"#
        )
    }

    #[test]
    fn layers_and_diff_ids_are_joined() {
        let image = image(&config("amd64", 2), 2).unwrap();
        assert_eq!(image.layers.len(), 2);
        assert_eq!(image.layers[1].diff_id, digest::sha256(b"diff"));
        assert_eq!(image.compressed_bytes(), 14);
        assert_eq!(image.environment, ["A=b"]);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (config, layers, expected) in [
            (config("amd64", 2), 1, "1 layers, the config 2 diff IDs"),
            (config("arm64", 1), 1, "is for linux/arm64, not for linux/amd64"),
            (config("amd64", 501), 501, "at most 500"),
            ("{}".into(), 0, "config cannot be read"),
        ] {
            let error = image(&config, layers).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn sizes_that_nobody_has_are_refused() {
        for (layers, size, fits) in [
            (2, MAX_IMAGE_BYTES / 2, true),
            (2, MAX_IMAGE_BYTES / 2 + 1, false),
            (1, u64::MAX, false),
            (2, u64::MAX, false),
        ] {
            let image = image_of(&config("amd64", layers), layers, size);
            assert_eq!(image.is_ok(), fits, "{layers} {size}");
        }
    }
}
