//! Where the configuration files of this machine and its user are.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

/// Where configuration files are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// What `/etc` and the like are below: `/`.
    root: PathBuf,
    home: PathBuf,
    /// `CONTAINERS_REGISTRIES_CONF`.
    registries_conf: Option<PathBuf>,
    /// `REGISTRY_AUTH_FILE`.
    auth_file: Option<PathBuf>,
    /// What `podman login` writes to.
    login_file: PathBuf,
    xdg_config: PathBuf,
    docker_config: PathBuf,
}

/// The files of a registries.conf.
#[derive(Debug, PartialEq, Eq)]
pub struct RegistriesFiles {
    /// The main file, and whether it must be there.
    pub main: Option<(PathBuf, bool)>,
    /// Directories with more, in their order.
    pub drop_ins: Vec<PathBuf>,
}

impl Places {
    /// The usual places, as this process's environment has them.
    pub fn usual() -> Self {
        Self::new("/", nix::unistd::getuid().as_raw(), |name| env::var_os(name))
    }

    /// The places of user `uid` below `root`, with this environment.
    pub fn new(root: impl Into<PathBuf>, uid: u32, var: impl Fn(&str) -> Option<OsString>) -> Self {
        let root = root.into();
        let path = |name: &str| var(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME").filter(|home| is_ours(home)).or(home_of(&root, uid));
        let home = home.unwrap_or_else(|| root.join("root"));
        let runtime = path("XDG_RUNTIME_DIR").unwrap_or_else(|| root.join(format!("run/containers/{uid}")));
        // Of the runtime directory a part, of the other the whole is the containers' own.
        let login_file = match path("XDG_RUNTIME_DIR") {
            Some(directory) => directory.join("containers/auth.json"),
            None => runtime.join("auth.json"),
        };
        Self {
            registries_conf: path("CONTAINERS_REGISTRIES_CONF").or(path("REGISTRIES_CONFIG_PATH")),
            auth_file: path("REGISTRY_AUTH_FILE"),
            login_file,
            xdg_config: path("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")),
            docker_config: path("DOCKER_CONFIG").unwrap_or_else(|| home.join(".docker")),
            home,
            root,
        }
    }

    /// The files of the registries.conf; `chosen` is the user's choice.
    pub fn registries_conf(&self, chosen: Option<&Path>) -> RegistriesFiles {
        let user = self.home.join(".config/containers/registries.conf");
        let user_drop_ins = self.home.join(".config/containers/registries.conf.d");
        let system_drop_ins = self.root.join("etc/containers/registries.conf.d");
        let chosen = chosen.map(Into::into).or_else(|| self.registries_conf.clone());
        if let Some(chosen) = chosen {
            return RegistriesFiles {
                main: Some((chosen, true)),
                drop_ins: vec![system_drop_ins, user_drop_ins],
            };
        }
        // One that can't be looked at counts as none, as with podman: HOME may be somebody else's.
        if user.exists() {
            return RegistriesFiles {
                main: Some((user, true)),
                drop_ins: vec![user_drop_ins],
            };
        }
        let system = ["etc", "usr/share"].map(|top| self.root.join(top).join("containers/registries.conf"));
        RegistriesFiles {
            main: system
                .into_iter()
                .find(|path| path.exists())
                .map(|path| (path, false)),
            drop_ins: vec![system_drop_ins, user_drop_ins],
        }
    }

    /// The files that say which images are accepted, of which the first that exists counts.
    pub fn policies(&self) -> [PathBuf; 2] {
        [self.home.join(".config"), self.root.join("etc")].map(|top| top.join("containers/policy.json"))
    }

    /// The one file of credentials that counts, if the environment names it.
    pub fn named_auth_file(&self) -> Option<&Path> {
        self.auth_file.as_deref()
    }

    /// The files of credentials, in the order in which they are asked; most don't exist. The last is of
    /// docker's old form.
    pub fn auth_files(&self) -> [PathBuf; 4] {
        [
            self.login_file.clone(),
            self.xdg_config.join("containers/auth.json"),
            self.docker_config.join("config.json"),
            self.home.join(".dockercfg"),
        ]
    }

    /// The directories with certificates for `host` (`HOST[:PORT]`), of which the first that exists counts.
    pub fn certs(&self, host: &str) -> [PathBuf; 3] {
        self.all_certs().map(|directory| directory.join(host))
    }

    /// Where files with credentials and keys may be, for whatever registry; most don't exist.
    pub fn secret_files(&self) -> impl Iterator<Item = PathBuf> {
        let is_key = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "key");
        let hosts = self.all_certs().into_iter().flat_map(entries);
        let keys = hosts.flat_map(entries).filter(is_key);
        self.auth_file
            .clone()
            .into_iter()
            .chain(self.auth_files())
            .chain(keys)
    }

    fn all_certs(&self) -> [PathBuf; 3] {
        [
            self.home.join(".config/containers/certs.d"),
            self.root.join("etc/containers/certs.d"),
            self.root.join("etc/docker/certs.d"),
        ]
    }
}

/// What is in a directory, if it can be read.
fn entries(directory: PathBuf) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// Whether this user may look into a home: `su` and its like leave HOME as it was.
fn is_ours(home: &Path) -> bool {
    access(home, AccessFlags::X_OK) != Err(Errno::EACCES)
}

/// The home of user `uid`, as passwd(5) has it.
fn home_of(root: &Path, uid: u32) -> Option<PathBuf> {
    let users = fs::read_to_string(root.join("etc/passwd")).ok()?;
    let mut users = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let user = users.find(|user| user.get(2).is_some_and(|field| field.parse() == Ok(uid)))?;
    user.get(5).filter(|home| !home.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_moves_them() {
        let places = Places::new("/r", 7, |name| (name == "HOME").then(|| "/h".into()));
        assert_eq!(
            places.auth_files().map(|path| path.display().to_string()),
            [
                "/r/run/containers/7/auth.json",
                "/h/.config/containers/auth.json",
                "/h/.docker/config.json",
                "/h/.dockercfg"
            ]
        );
        assert_eq!(places.named_auth_file(), None);
        let places = Places::new("/", 0, |name| match name {
            "HOME" => Some("".into()),
            name => Some(format!("/{name}").into()),
        });
        assert_eq!(
            places.auth_files().map(|path| path.display().to_string()),
            [
                "/XDG_RUNTIME_DIR/containers/auth.json",
                "/XDG_CONFIG_HOME/containers/auth.json",
                "/DOCKER_CONFIG/config.json",
                "/root/.dockercfg"
            ]
        );
        assert_eq!(places.named_auth_file(), Some(Path::new("/REGISTRY_AUTH_FILE")));
        let named = |chosen| places.registries_conf(chosen).main.unwrap();
        assert_eq!(named(None), ("/CONTAINERS_REGISTRIES_CONF".into(), true));
        assert_eq!(named(Some(Path::new("/x"))), ("/x".into(), true));
    }

    #[test]
    fn without_home_the_list_of_users_says_where_it_is() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let users = "root:x:0:0::/root:/bin/sh\nann:x:7:7::/home/ann:/bin/sh\nbob:x:8:8:::\nbroken\n";
        fs::write(root.path().join("etc/passwd"), users).unwrap();
        for (uid, expected) in [
            (0, PathBuf::from("/root")),
            (7, "/home/ann".into()),
            (8, root.path().join("root")),
            (9, root.path().join("root")),
        ] {
            assert_eq!(Places::new(root.path(), uid, |_| None).home, expected, "{uid}");
        }
    }

    #[test]
    fn a_users_registries_conf_replaces_the_systems() {
        let root = tempfile::tempdir().unwrap();
        let places = Places::new(root.path(), 0, |_| None);
        let main = || {
            let main = places.registries_conf(None).main?.0;
            Some(main.strip_prefix(root.path()).unwrap().display().to_string())
        };
        assert_eq!(main(), None);
        for (file, drop_ins) in [
            ("usr/share/containers/registries.conf", 2),
            ("etc/containers/registries.conf", 2),
            ("root/.config/containers/registries.conf", 1),
        ] {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            assert_eq!(main().as_deref(), Some(file));
            assert_eq!(places.registries_conf(None).drop_ins.len(), drop_ins, "{file}");
        }
    }
}
