//! An OCI image layout: a directory with `oci-layout`, `index.json` and blobs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Digest, Flavor, Image, Layer};

const TAG: &str = "org.opencontainers.image.ref.name";

/// An OCI image layout on disk.
#[derive(Debug, Clone)]
pub struct Layout {
    directory: PathBuf,
}

impl Layout {
    /// Makes an empty layout in a directory, which is made too.
    pub fn create(directory: &Path) -> Result<Self> {
        let layout = Self {
            directory: directory.into(),
        };
        fs::create_dir_all(directory.join("blobs/sha256"))?;
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        layout.write_index(&json!({ "schemaVersion": 2, "manifests": [] }))?;
        Ok(layout)
    }

    /// A layout that exists.
    pub fn open(directory: &Path) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// The file of a blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs/sha256").join(digest.hex())
    }

    /// Writes a blob.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        fs::write(self.blob(&digest), bytes).with_context(|| format!("writing blob {digest}"))?;
        Ok(digest)
    }

    /// Writes an image and gives it a tag.
    pub fn add(&self, image: &Image, tag: &str) -> Result<Digest> {
        let manifest = self.write_image(image)?;
        self.tag(manifest.clone(), tag)?;
        Digest::in_descriptor(&manifest)
    }

    /// Writes an index of images, each under its own platform, and gives the index a tag.
    pub fn add_index(&self, images: &[Image], flavor: Flavor, tag: &str) -> Result<Digest> {
        let mut manifests = Vec::new();
        for image in images {
            let mut descriptor = self.write_image(image)?;
            descriptor["platform"] = image.platform();
            manifests.push(descriptor);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": flavor.index(), "manifests": manifests });
        let descriptor = self.put_json(flavor.index(), &index)?;
        self.tag(descriptor.clone(), tag)?;
        Digest::in_descriptor(&descriptor)
    }

    /// Gives a tag to the image `base` with more layers on top; the layers below are shared, not copied.
    pub fn derive(&self, base: &str, layers: &[Layer], tag: &str) -> Result<Digest> {
        let mut manifest = self.manifest(base)?;
        let mut config = self.read(&Digest::in_descriptor(&manifest["config"])?)?;
        for layer in layers {
            let list = manifest["layers"]
                .as_array_mut()
                .context("the manifest has no layers")?;
            list.push(self.write_layer(layer, Flavor::Oci)?);
            let diff_ids = config["rootfs"]["diff_ids"]
                .as_array_mut()
                .context("no diff IDs")?;
            diff_ids.push(layer.diff_id().to_string().into());
        }
        manifest["config"] = self.put_json(Flavor::Oci.config(), &config)?;
        self.add_manifest(&manifest, tag)
    }

    /// The manifest (or index) that a tag names.
    pub fn manifest(&self, tag: &str) -> Result<Value> {
        self.read(&self.resolve(tag)?)
    }

    /// Changes the manifest that a tag names: it can say anything then, under a digest that is right.
    pub fn edit_manifest(&self, tag: &str, edit: impl FnOnce(&mut Value)) -> Result<Digest> {
        let mut manifest = self.manifest(tag)?;
        edit(&mut manifest);
        self.add_manifest(&manifest, tag)
    }

    /// Changes the configuration of the image that a tag names, and so its digest.
    pub fn edit_config(&self, tag: &str, edit: impl FnOnce(&mut Value)) -> Result<Digest> {
        let mut manifest = self.manifest(tag)?;
        let mut config = self.read(&Digest::in_descriptor(&manifest["config"])?)?;
        edit(&mut config);
        manifest["config"] = self.put_json(Flavor::Oci.config(), &config)?;
        self.add_manifest(&manifest, tag)
    }

    /// Writes a manifest of any content and gives it a tag.
    fn add_manifest(&self, manifest: &Value, tag: &str) -> Result<Digest> {
        let media_type = manifest["mediaType"]
            .as_str()
            .unwrap_or(Flavor::Oci.manifest())
            .to_string();
        let descriptor = self.put_json(&media_type, manifest)?;
        self.tag(descriptor.clone(), tag)?;
        Digest::in_descriptor(&descriptor)
    }

    /// The digest of what a tag names.
    pub fn resolve(&self, tag: &str) -> Result<Digest> {
        let index = self.index()?;
        let manifests = index["manifests"]
            .as_array()
            .context("index.json has no manifests")?;
        let named = manifests
            .iter()
            .find(|descriptor| descriptor["annotations"][TAG] == tag);
        Digest::in_descriptor(
            named.with_context(|| format!("{} has no tag {tag}", self.directory.display()))?,
        )
    }

    /// All blobs that a manifest or index leads to, itself included, and whether each is a manifest.
    pub fn reachable(&self, digest: &Digest) -> Result<Vec<(Digest, bool)>> {
        let document = self.read(digest)?;
        let mut found = vec![(digest.clone(), true)];
        for child in document["manifests"].as_array().into_iter().flatten() {
            found.extend(self.reachable(&Digest::in_descriptor(child)?)?);
        }
        let layers = document["layers"].as_array().into_iter().flatten();
        for blob in layers.chain(document.get("config")) {
            found.push((Digest::in_descriptor(blob)?, false));
        }
        Ok(found)
    }

    fn write_image(&self, image: &Image) -> Result<Value> {
        let layers = image
            .layers
            .iter()
            .map(|layer| self.write_layer(layer, image.flavor));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": image.flavor.manifest(),
            "layers": layers.collect::<Result<Vec<_>>>()?,
            "config": self.put_json(image.flavor.config(), &image.config())?,
        });
        self.put_json(image.flavor.manifest(), &manifest)
    }

    fn write_layer(&self, layer: &Layer, flavor: Flavor) -> Result<Value> {
        self.put_typed(flavor.layer(layer.compression()), &layer.blob()?)
    }

    fn put_json(&self, media_type: &str, value: &Value) -> Result<Value> {
        self.put_typed(media_type, &serde_json::to_vec(value)?)
    }

    fn put_typed(&self, media_type: &str, bytes: &[u8]) -> Result<Value> {
        let digest = self.put(bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() }))
    }

    fn read(&self, digest: &Digest) -> Result<Value> {
        let path = self.blob(digest);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("parsing {}", path.display()))
    }

    fn index(&self) -> Result<Value> {
        let path = self.directory.join("index.json");
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn write_index(&self, index: &Value) -> Result<()> {
        Ok(fs::write(
            self.directory.join("index.json"),
            serde_json::to_vec_pretty(index)?,
        )?)
    }

    fn tag(&self, mut descriptor: Value, tag: &str) -> Result<()> {
        descriptor["annotations"] = json!({ TAG: tag });
        let mut index = self.index()?;
        let manifests = index["manifests"]
            .as_array_mut()
            .context("index.json has no manifests")?;
        manifests.retain(|other| other["annotations"][TAG] != tag);
        manifests.push(descriptor);
        self.write_index(&index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Compression, Entry};
    use super::*;

    fn image(word: &str) -> Image {
        let layer = |compression| Layer::new([Entry::file("word", word)]).compressed(compression);
        Image::new().layers([Compression::None, Compression::Gzip, Compression::Zstd].map(layer))
    }

    #[test]
    fn an_image_reaches_its_layers_and_config() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let digest = layout.add(&image("a"), "a").unwrap();
        assert_eq!(layout.resolve("a").unwrap(), digest);
        let reachable = layout.reachable(&digest).unwrap();
        assert_eq!(
            reachable
                .iter()
                .map(|(_, manifest)| *manifest)
                .collect::<Vec<_>>(),
            [true, false, false, false, false]
        );
        for (blob, _) in reachable {
            assert_eq!(Digest::of(&fs::read(layout.blob(&blob)).unwrap()), blob);
        }
    }

    #[test]
    fn a_derived_image_shares_the_layers_below() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        layout.add(&image("a"), "a").unwrap();
        layout
            .derive("a", &[Layer::new([Entry::whiteout("word")])], "b")
            .unwrap();
        let (a, b) = (layout.manifest("a").unwrap(), layout.manifest("b").unwrap());
        assert_eq!(
            a["layers"].as_array().unwrap()[..],
            b["layers"].as_array().unwrap()[..3]
        );
        assert_eq!(b["layers"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn a_manifest_lies_under_its_true_digest() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let honest = layout.add(&image("a"), "a").unwrap();
        let lying = layout
            .edit_manifest("a", |manifest| manifest["layers"][0]["size"] = 7.into())
            .unwrap();
        assert_ne!(honest, lying);
        assert_eq!(Digest::of(&fs::read(layout.blob(&lying)).unwrap()), lying);
        assert_eq!(layout.resolve("a").unwrap(), lying);
    }

    #[test]
    fn an_index_names_platforms() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let images = [
            image("a"),
            image("b").architecture("arm64").flavor(Flavor::Docker),
        ];
        let digest = layout.add_index(&images, Flavor::Oci, "all").unwrap();
        let index = layout.manifest("all").unwrap();
        assert_eq!(index["manifests"][1]["platform"]["architecture"], "arm64");
        assert_eq!(
            layout
                .reachable(&digest)
                .unwrap()
                .iter()
                .filter(|(_, manifest)| *manifest)
                .count(),
            3
        );
    }
}
