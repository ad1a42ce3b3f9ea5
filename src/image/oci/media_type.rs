//! Media types: which documents and which layers are understood (image-spec `media-types.md`, and Docker's
//! image manifest version 2, schema 2).

use oci_spec::image::MediaType;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
const DOCKER_FOREIGN_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// What to send as `Accept` when asking for a manifest.
pub const ACCEPTED_MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    DOCKER_MANIFEST,
    DOCKER_INDEX,
];

/// The two kinds of document that a tag can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    Manifest,
    Index,
}

/// How a layer's archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// The kind of document that a media type stands for; `None` for those that aren't understood.
pub fn document_kind(media_type: &MediaType) -> Option<DocumentKind> {
    match media_type {
        MediaType::ImageManifest => Some(DocumentKind::Manifest),
        MediaType::ImageIndex => Some(DocumentKind::Index),
        MediaType::Other(other) if other == DOCKER_MANIFEST => Some(DocumentKind::Manifest),
        MediaType::Other(other) if other == DOCKER_INDEX => Some(DocumentKind::Index),
        _ => None,
    }
}

/// The compression of a layer with this media type; `None` where it is no layer that can be unpacked.
pub fn layer_compression(media_type: &MediaType) -> Option<Compression> {
    use MediaType::*;
    match media_type {
        ImageLayer | ImageLayerNonDistributable => Some(Compression::None),
        ImageLayerGzip | ImageLayerNonDistributableGzip => Some(Compression::Gzip),
        ImageLayerZstd | ImageLayerNonDistributableZstd => Some(Compression::Zstd),
        Other(other) => match other.as_str() {
            DOCKER_LAYER | DOCKER_FOREIGN_LAYER => Some(Compression::None),
            DOCKER_LAYER_GZIP | DOCKER_FOREIGN_LAYER_GZIP => Some(Compression::Gzip),
            DOCKER_LAYER_ZSTD => Some(Compression::Zstd),
            _ => None,
        },
        _ => None,
    }
}

/// Whether this is the config of a container image (and not of some other artifact).
pub fn is_image_config(media_type: &MediaType) -> bool {
    match media_type {
        MediaType::ImageConfig => true,
        MediaType::Other(other) => other == DOCKER_CONFIG,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_of_both_families() {
        for (media_type, compression) in [
            ("application/vnd.oci.image.layer.v1.tar", Some(Compression::None)),
            (
                "application/vnd.oci.image.layer.v1.tar+gzip",
                Some(Compression::Gzip),
            ),
            (
                "application/vnd.oci.image.layer.v1.tar+zstd",
                Some(Compression::Zstd),
            ),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                Some(Compression::Gzip),
            ),
            (DOCKER_LAYER_GZIP, Some(Compression::Gzip)),
            (DOCKER_FOREIGN_LAYER_GZIP, Some(Compression::Gzip)),
            (DOCKER_FOREIGN_LAYER, Some(Compression::None)),
            ("application/vnd.oci.image.layer.v1.tar+lzma", None),
            ("application/vnd.in-toto+json", None),
        ] {
            assert_eq!(
                layer_compression(&MediaType::from(media_type)),
                compression,
                "{media_type}"
            );
        }
    }

    #[test]
    fn every_accepted_document_has_a_kind() {
        for media_type in ACCEPTED_MANIFESTS {
            assert!(
                document_kind(&MediaType::from(media_type)).is_some(),
                "{media_type}"
            );
        }
    }
}
