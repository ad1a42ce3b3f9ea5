//! The machine's own apt: its distribution, its suites and mirrors, packages installed or only unpacked.
//!
//! Every address is read from apt's own configuration, so whatever mirror the machine uses is used here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

/// The distribution's code name as in `/etc/os-release`: `bookworm`, `trixie`, `noble`.
pub fn codename() -> Result<String> {
    os_release("VERSION_CODENAME")
}

/// The distribution's identity as in `/etc/os-release`: `debian`, `ubuntu`.
pub fn distribution() -> Result<String> {
    os_release("ID")
}

fn os_release(key: &str) -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    text.lines()
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.trim_matches('"').to_string())
        .with_context(|| format!("/etc/os-release has no {key}; a Debian or Ubuntu machine is needed"))
}

/// One place that apt fetches package lists from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The archive's address, with no trailing slash.
    pub uri: String,
    /// The suite as it was asked for: `bookworm`, `bookworm-security`.
    pub suite: String,
    /// The component: `main`, `universe`.
    pub component: String,
}

/// The distribution's own sources among those the machine has, third parties left out.
pub fn sources() -> Result<Vec<Source>> {
    let codename = codename()?;
    let listed = command::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(LABEL)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
        "Created-By: Packages",
    ]))?;
    let sources: BTreeSet<Source> = listed
        .lines()
        .filter_map(|line| parse_source(line, &codename))
        .collect();
    if sources.is_empty() {
        bail!("apt has no package list of {codename}'s own archive; run `apt-get update` first");
    }
    Ok(sources.into_iter().collect())
}

/// Takes the lines whose label is the distribution's and whose suite belongs to the release.
fn parse_source(line: &str, codename: &str) -> Option<Source> {
    let mut fields = line.split('|');
    let (label, uri, suite, component) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let own = ["Debian", "Debian-Security", "Ubuntu"].contains(&label);
    let release = suite == codename || suite.starts_with(&format!("{codename}-"));
    let backports = suite.ends_with("-backports");
    (own && release && !backports).then(|| Source {
        uri: uri.trim_end_matches('/').to_string(),
        suite: suite.to_string(),
        component: component.to_string(),
    })
}

/// Which of these packages are not installed.
pub fn missing(packages: &[&str]) -> Vec<String> {
    let installed = |package: &str| {
        Command::new("dpkg-query")
            .args(["-W", "-f", "${db:Status-Status}", package])
            .output()
            .is_ok_and(|output| output.status.success() && output.stdout == b"installed")
    };
    packages
        .iter()
        .filter(|package| !installed(package))
        .map(|package| package.to_string())
        .collect()
}

/// Fetches the package lists when the machine has none of its own distribution (a fresh container).
pub fn update_if_empty() -> Result<()> {
    let known = Command::new("apt-cache")
        .args(["show", "--no-all-versions", "docker-registry"])
        .output();
    if known.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    update()
}

/// Fetches the package lists.
pub fn update() -> Result<()> {
    command::run(apt_get().arg("update")).context("updating apt's package lists")
}

/// Installs packages, from `suite` where one is named.
pub fn install(packages: &[String], suite: Option<&str>) -> Result<()> {
    let _daemons = NoDaemons::new();
    let mut command = apt_get();
    command.args(["install", "--yes", "--no-install-recommends"]);
    command.args(suite.into_iter().flat_map(|suite| ["--target-release", suite]));
    command::run(command.args(packages)).context("installing packages")
}

/// The command line that [`install`] would run, for people.
pub fn install_line(packages: &[String]) -> String {
    format!("apt-get install --no-install-recommends {}", packages.join(" "))
}

/// Makes the release's backports known to apt, on the mirror that the release itself comes from.
pub fn add_backports() -> Result<String> {
    let codename = codename()?;
    let suite = format!("{codename}-backports");
    let sources = sources()?;
    let base = sources
        .iter()
        .find(|source| source.suite == codename)
        .with_context(|| format!("apt has no source for {codename} itself"))?;
    let line = format!("deb {} {suite} {}\n", base.uri, base.component);
    fs::write("/etc/apt/sources.list.d/landfall-backports.list", line)
        .context("adding the backports suite to apt's sources")?;
    update()?;
    Ok(suite)
}

/// The version of a package that apt would install.
pub fn candidate(package: &str) -> Result<String> {
    let policy = command::output(Command::new("apt-cache").args(["policy", package]))?;
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "));
    let known = version.filter(|version| *version != "(none)");
    Ok(known
        .with_context(|| format!("apt does not know {package}; run `apt-get update` first"))?
        .to_string())
}

/// Downloads a package with the dependencies that match `keep`, and unpacks all into `directory`.
pub fn unpack(package: &str, keep: impl Fn(&str) -> bool, directory: &Path) -> Result<()> {
    let downloads = crate::tempdir()?;
    let mut wanted = vec![package.to_string()];
    wanted.extend(dependencies(package)?.into_iter().filter(|name| keep(name)));
    command::run(
        apt_get()
            .arg("download")
            .args(&wanted)
            .current_dir(downloads.path()),
    )
    .with_context(|| format!("downloading {package}"))?;
    for entry in fs::read_dir(downloads.path())? {
        command::run(
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(entry?.path())
                .arg(directory),
        )?;
    }
    Ok(())
}

/// Downloads these packages and all that they depend on, as for an empty system, into `directory`.
pub fn download_closure(packages: &[&str], directory: &Path) -> Result<()> {
    fs::create_dir_all(directory.join("partial"))?;
    let archives = format!("Dir::Cache::archives={}", directory.display());
    let options = ["Dir::State::status=/dev/null", &archives];
    let mut command = apt_get();
    command.args(["install", "--yes", "--download-only", "--no-install-recommends"]);
    command.args(options.into_iter().flat_map(|option| ["-o", option]));
    command::run(command.args(packages)).context("downloading packages")
}

/// Downloads these packages of a component that the machine's own sources may lack, into `directory`. apt's
/// state is kept there too: that of the machine stays as it is.
pub fn download_of_component(component: &str, packages: &[&str], directory: &Path) -> Result<()> {
    let state = fs::canonicalize(directory)?.join("apt");
    for part in ["lists/partial", "cache"] {
        fs::create_dir_all(state.join(part))?;
    }
    let keyring = format!("/usr/share/keyrings/{}-archive-keyring.gpg", distribution()?);
    let suites: BTreeSet<(String, String)> = (sources()?.into_iter())
        .map(|source| (source.uri, source.suite))
        .collect();
    let lines = suites
        .iter()
        .map(|(uri, suite)| format!("deb [signed-by={keyring}] {uri} {suite} {component}\n"));
    fs::write(state.join("sources.list"), lines.collect::<String>())?;
    let options = [
        format!("Dir::Etc::sourcelist={}/sources.list", state.display()),
        "Dir::Etc::sourceparts=/dev/null".to_string(),
        format!("Dir::State::lists={}/lists", state.display()),
        format!("Dir::Cache={}/cache", state.display()),
    ];
    let with_options = || {
        let mut command = apt_get();
        command.args(options.iter().flat_map(|option| ["-o", option]));
        command
    };
    command::run(with_options().arg("update")).context("reading what the component has")?;
    command::run(
        with_options()
            .arg("download")
            .args(packages)
            .current_dir(directory),
    )
    .with_context(|| format!("downloading packages of {component}"))
}

fn dependencies(package: &str) -> Result<BTreeSet<String>> {
    let arguments = ["depends", "--recurse", "--important", "--no-pre-depends", package];
    let listed = command::output(Command::new("apt-cache").args(arguments))?;
    Ok(listed
        .lines()
        .filter(|line| !line.starts_with([' ', '<']))
        .map(str::to_string)
        .collect())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-o", "DPkg::Lock::Timeout=600"]);
    command
}

/// While it lives, freshly installed packages don't start their daemons: nothing here needs them.
struct NoDaemons {
    added: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoDaemons {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let added = !Path::new(POLICY).exists()
            && fs::write(POLICY, "#!/bin/sh\nexit 101\n").is_ok()
            && fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)).is_ok();
        Self { added }
    }
}

impl Drop for NoDaemons {
    fn drop(&mut self) {
        if self.added {
            let _ = fs::remove_file(POLICY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_distributions_own_sources_count() {
        let rows = [
            ("Debian|http://m.example/debian/|bookworm|main", true),
            (
                "Debian|http://m.example/debian-security/|bookworm-security|main",
                true,
            ),
            (
                "Debian-Security|http://m.example/debian-security/|bookworm-security|main",
                true,
            ),
            (
                "Debian Backports|http://m.example/debian/|bookworm-backports|main",
                false,
            ),
            ("Debian|http://m.example/debian/|bookworm-backports|main", false),
            ("Debian|http://m.example/debian/|sid|main", false),
            ("Somebody|http://m.example/debian/|bookworm|main", false),
            ("garbage", false),
        ];
        for (line, taken) in rows {
            assert_eq!(parse_source(line, "bookworm").is_some(), taken, "{line}");
        }
    }
}
