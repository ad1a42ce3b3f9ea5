//! The bootable fixture image: Debian packages, a kernel, the stand-ins of `fixtures/bootable`, in many
//! layers.
//!
//! It is made once for each state of its inputs and kept in `target/fixture`. Its tree is known here, file by
//! file, and goes into the image as a list, so that the container and the booted system can check what the
//! layers became.

mod initramfs;
mod split;
mod tree;
mod uki;

use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use crate::image::{Compression, Entry, Image, Layer, Layout};
use crate::kernel::Kernel;
use crate::{apt, command};
use tree::Tree;

/// The image's tag: more than 20 layers, as gzip, zstd and uncompressed.
pub const BOOTABLE: &str = "bootable";
/// The same system in more than 100 layers.
pub const MANY_LAYERS: &str = "many-layers";
/// The same with no bootc in it.
pub const NO_BOOTC: &str = "no-bootc";
/// The same with a bootc that spoils the firmware's variables, and exits with 3 after it has partitioned the
/// disk.
pub const FAILS_HALFWAY: &str = "fails-halfway";

/// The same in layers of zstd alone; the initial ramdisk of the installed system unlocks its root by the
/// machine's TPM. When its bootc is done, the firmware has no room for changes.
pub const ENCRYPTED: &str = "encrypted";
/// The same in layers of gzip alone; it boots a unified kernel image, and has no bootupd: bootc takes its
/// composefs backend. And it spoils the firmware's variables.
pub const UNIFIED: &str = "unified";

/// Where the image keeps what its own checks need.
const OWN: &str = "usr/lib/landfall-fixture";

/// The layout that holds the fixture image and its variants, by tag; made if it isn't there yet.
pub fn layout() -> Result<Layout> {
    let kernel = Kernel::fetch()?;
    let parent = crate::target().join("fixture");
    fs::create_dir_all(&parent)?;
    let lock = File::create(parent.join("lock"))?;
    lock.lock()?; // tests ask at the same time
    let directory = parent.join(inputs(&kernel)?);
    if !directory.exists() {
        let unfinished = crate::tempdir()?;
        eprintln!("making the fixture image from packages (once)");
        build(&kernel, unfinished.path()).context("making the fixture image")?;
        fs::rename(unfinished.keep(), &directory)?;
    }
    Ok(Layout::open(&directory))
}

/// A name for all that goes into the image: the files of the fixture, this generator, the release and its
/// kernel.
fn inputs(kernel: &Kernel) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(apt::codename()?);
    hash.update(&kernel.version);
    for source in [
        include_str!("fixture.rs"),
        include_str!("fixture/initramfs.rs"),
        include_str!("fixture/split.rs"),
        include_str!("fixture/tree.rs"),
        include_str!("fixture/uki.rs"),
    ] {
        hash.update(source);
    }
    for file in files(&source())? {
        hash.update(file.as_os_str().as_encoded_bytes());
        hash.update(fs::read(source().join(&file))?);
        hash.update(
            fs::metadata(source().join(&file))?
                .permissions()
                .mode()
                .to_le_bytes(),
        );
    }
    Ok(hash.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn source() -> PathBuf {
    crate::root().join("fixtures/bootable")
}

fn build(kernel: &Kernel, directory: &Path) -> Result<()> {
    let mut tree = packages()?;
    add_directories(&mut tree);
    add_own_files(&mut tree)?;
    let files = KernelFiles::of(kernel)?;
    files.add_modules(&mut tree)?;
    let with_kernel = |tree: &Tree, initramfs: Vec<u8>| {
        let mut tree = tree.clone();
        tree.add(Entry::file(files.path("vmlinuz"), files.vmlinuz.as_slice()));
        tree.add(Entry::file(files.path("initramfs.img"), initramfs));
        tree
    };

    let layout = Layout::create(directory)?;
    let add = |tag: &str, tree: &Tree, shape: Shape| -> Result<()> {
        layout.add(&Image::new().layers(layers(tree, shape)?), tag)?;
        Ok(())
    };
    let init = source().join("initrd/init");
    let plain = initramfs::make(&init, &tree, files.staging(), &[])?;
    let bootable = with_kernel(&tree, plain.clone());
    add(BOOTABLE, &bootable, Shape::mixed(22, 0))?;
    add(MANY_LAYERS, &bootable, Shape::mixed(60, 50))?;
    let mut encrypted = with_kernel(
        &tree,
        initramfs::make(&init, &tree, files.staging(), &initramfs::UNLOCKS_LUKS)?,
    );
    encrypted.add_with_parents(Entry::file("etc/landfall-fixture/fill-firmware", ""));
    add(ENCRYPTED, &encrypted, Shape::of(Compression::Zstd, 10))?;
    let unified = uki::make(&tree, &files.vmlinuz, &plain)?;
    tree.remove("usr/lib/bootupd");
    tree.add_with_parents(Entry::file(uki::PATH, unified));
    tree.add_with_parents(Entry::file("etc/landfall-fixture/spoil-firmware", ""));
    add(UNIFIED, &tree, Shape::of(Compression::Gzip, 10))?;
    layout.derive(
        BOOTABLE,
        &[Layer::new([Entry::whiteout("usr/bin/bootc")])],
        NO_BOOTC,
    )?;
    let told_to_fail = Layer::new(
        ["fail-halfway", "spoil-firmware"]
            .map(|told| Entry::file(format!("etc/landfall-fixture/{told}"), "")),
    );
    layout.derive(BOOTABLE, &[told_to_fail], FAILS_HALFWAY)?;
    Ok(())
}

/// How a tree becomes layers.
#[derive(Clone, Copy)]
struct Shape {
    /// Into how many parts the tree is cut.
    parts: usize,
    /// How many small layers come on top.
    tiny: usize,
    /// How all layers are compressed; none: in turn, by all means.
    compression: Option<Compression>,
}

impl Shape {
    fn mixed(parts: usize, tiny: usize) -> Self {
        Self {
            parts,
            tiny,
            compression: None,
        }
    }

    fn of(compression: Compression, parts: usize) -> Self {
        Self {
            parts,
            tiny: 0,
            compression: Some(compression),
        }
    }
}

/// The image's layers: the seam below, the tree in parts, the seam above, small ones, the lists.
fn layers(tree: &Tree, shape: Shape) -> Result<Vec<Layer>> {
    let (seam, small) = (split::Seam::new(OWN), split::Tiny::new(OWN, shape.tiny));
    let mut whole = tree.clone();
    whole.extend(seam.merged());
    whole.extend(small.merged());
    let lists = [
        Entry::file(format!("{OWN}/names"), whole.names(&format!("{OWN}/contents"))),
        Entry::file(format!("{OWN}/contents"), whole.contents()),
    ];
    let layers = [seam.lower()]
        .into_iter()
        .chain(split::parts(tree, shape.parts))
        .chain([seam.upper()])
        .chain(small.layers())
        .chain([lists.to_vec()])
        .enumerate();
    let compression = |at| shape.compression.unwrap_or_else(|| split::compression(at));
    Ok(layers
        .map(|(at, entries)| Layer::new(tree.with_parents(entries)).compressed(compression(at)))
        .collect())
}

/// The files of the packages, by mmdebstrap from the machine's own sources, less what `drop` names.
fn packages() -> Result<Tree> {
    let archive = crate::tempdir()?;
    let archive = (archive.path().join("packages.tar"), archive);
    let merged_usr = r#"for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done"#;
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--quiet", "--variant=extract", "--format=tar"])
        .arg(format!(
            "--keyring=/usr/share/keyrings/{}-archive-keyring.gpg",
            apt::distribution()?
        ))
        .arg(format!("--setup-hook={merged_usr}"))
        .arg(format!("--include={}", package_names()?.join(",")))
        .arg(apt::codename()?)
        .arg(&archive.0);
    for apt::Source {
        uri,
        suite,
        component,
    } in apt::sources()?
    {
        mmdebstrap.arg(format!("deb {uri} {suite} {component}"));
    }
    command::run(&mut mmdebstrap)?;
    let rules = lines("drop")?;
    Tree::read(BufReader::new(File::open(&archive.0)?), |path| {
        stays(path, &rules)
    })
}

/// The names in `packages`; those with a question mark where this release has them.
fn package_names() -> Result<Vec<String>> {
    let known = |name: &str| match name.strip_suffix('?') {
        Some(name) => apt::candidate(name).is_ok().then(|| name.to_string()),
        None => Some(name.to_string()),
    };
    Ok(lines("packages")?.iter().filter_map(|name| known(name)).collect())
}

/// Whether a path is in the image: no rule is a prefix of it, or one that begins with `!` is.
fn stays(path: &str, rules: &[String]) -> bool {
    let kept = rules
        .iter()
        .filter_map(|rule| rule.strip_prefix('!'))
        .any(|prefix| path.starts_with(prefix));
    kept || !rules.iter().any(|prefix| path.starts_with(prefix.as_str()))
}

/// The lines of a list in the fixture's directory, without its comments.
fn lines(name: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(source().join(name)).with_context(|| format!("reading the list {name}"))?;
    let kept = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(kept.map(str::to_string).collect())
}

fn add_directories(tree: &mut Tree) {
    for path in ["boot", "dev", "proc", "run", "sys", "var"] {
        tree.add(Entry::directory(path));
    }
    for path in ["tmp", "var/tmp"] {
        tree.add(Entry::directory(path).mode(0o1777));
    }
    tree.add(Entry::directory("root").mode(0o700));
}

fn add_own_files(tree: &mut Tree) -> Result<()> {
    let root = source().join("root");
    for path in files(&root)? {
        let file = root.join(&path);
        let executable = fs::metadata(&file)?.permissions().mode() & 0o100 != 0;
        tree.add_with_parents(Entry::file(&path, fs::read(&file)?).mode(if executable {
            0o755
        } else {
            0o644
        }));
    }
    tree.add(Entry::symlink("usr/sbin/modprobe", "../bin/kmod"));
    Ok(())
}

/// A kernel's files as bootc images have them.
struct KernelFiles {
    version: String,
    vmlinuz: Vec<u8>,
    /// Its modules below `lib/modules`.
    staging: tempfile::TempDir,
}

impl KernelFiles {
    fn of(kernel: &Kernel) -> Result<Self> {
        let staging = crate::tempdir()?;
        kernel.install_modules(staging.path())?;
        Ok(Self {
            version: kernel.version.clone(),
            vmlinuz: fs::read(&kernel.vmlinuz)?,
            staging,
        })
    }

    fn staging(&self) -> &Path {
        self.staging.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new("usr/lib/modules").join(&self.version).join(name)
    }

    fn add_modules(&self, tree: &mut Tree) -> Result<()> {
        let installed = self.staging().join("lib/modules");
        for path in files(&installed)? {
            let target = Path::new("usr/lib/modules").join(&path);
            tree.add_with_parents(Entry::file(target, fs::read(installed.join(&path))?));
        }
        Ok(())
    }
}

/// All files below a directory, by relative path, in order.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(below) = directories.pop() {
        for entry in
            fs::read_dir(directory.join(&below)).with_context(|| format!("reading {}", below.display()))?
        {
            let entry = entry?;
            let path = below.join(entry.file_name());
            match entry.file_type()?.is_dir() {
                true => directories.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    Ok(found)
}
