//! The programs that Landfall is compared with, in a root of their own: newer than most machines have them,
//! and the same on all. podman, skopeo, umoci and crane come from Debian's next release.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use lab::{apt, command};

/// The suite: the first that has crane, and an umoci that knows zstd.
const SUITE: &str = "forky";

const PACKAGES: [&str; 5] = ["podman", "skopeo", "umoci", "crane", "tar"];

/// Where the programs are; made once.
pub struct Tools {
    root: PathBuf,
}

impl Tools {
    /// Fetches them from the machine's own mirror, if they aren't there yet.
    pub fn fetch() -> Result<Self> {
        let root = lab::target().join("bench/tools").join(SUITE);
        if !root.exists() {
            eprintln!("fetching podman, skopeo, umoci and crane from {SUITE} (once)");
            let unfinished = lab::tempdir()?;
            install(unfinished.path())?;
            fs::create_dir_all(root.parent().expect("has one"))?;
            fs::rename(unfinished.keep(), &root)?;
        }
        Ok(Self { root })
    }

    /// Shell commands that run `script` among these programs, with `place` as `/mnt`.
    pub fn script(&self, place: &Path, script: &str) -> String {
        let (root, place) = (self.root.display(), place.display());
        format!(
            "exec unshare --mount --propagation private sh -ec '
            for name in dev proc sys; do mount --rbind /$name {root}/$name; done
            mount --bind {place} {root}/mnt
            exec chroot {root} sh -ec \"$0\"' '{script}'"
        )
    }

    /// Their versions, as the package manager knows them.
    pub fn versions(&self) -> Result<BTreeMap<String, String>> {
        let listed = command::output(
            Command::new("dpkg-query")
                .arg(format!("--admindir={}", self.root.join("var/lib/dpkg").display()))
                .args(["-W", "-f", "${Package} ${Version}\\n"])
                .args(PACKAGES),
        )?;
        let pair = |line: &str| {
            line.split_once(' ')
                .map(|(name, version)| (name.into(), version.into()))
        };
        Ok(listed.lines().filter_map(pair).collect())
    }
}

fn install(root: &Path) -> Result<()> {
    if apt::distribution()? != "debian" {
        bail!(
            "podman, skopeo, umoci and crane come from Debian's mirror, which this machine's apt does not know"
        );
    }
    let codename = apt::codename()?;
    let sources = apt::sources()?;
    let own = sources.iter().find(|source| source.suite == codename);
    let source = own.with_context(|| format!("apt has no source for {codename} itself"))?;
    command::run(
        Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase"])
            .arg("--keyring=/usr/share/keyrings/debian-archive-keyring.gpg")
            // A machine whose clock is right may still have an old copy.
            .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
            .arg(format!("--include={}", PACKAGES.join(",")))
            .arg(SUITE)
            .arg(root)
            .arg(format!("deb {} {SUITE} main", source.uri)),
    )
}
