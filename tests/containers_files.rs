//! The same registries.conf, auth.json and certs.d for podman and for Landfall: both reach the same registry,
//! mirror and credentials, as the registries' own logs tell.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::{Engine, engine::general_purpose::STANDARD};
use lab::faulty::{At, Fault, Faulty, Rule};
use lab::image::{Digest, Entry, Image, Layer, Layout};
use lab::registry::Registry;
use support::noise;

/// Everything that is asked for.
const REPOSITORIES: [&str; 3] = ["real/os/web", "near/os/web", "os/web"];

/// Registries of every kind that labs have, all with the same image, but for `empty`.
struct Lab {
    directory: tempfile::TempDir,
    registries: BTreeMap<&'static str, Registry>,
    digest: String,
}

/// Files, and where they lead.
#[derive(Default)]
struct Case {
    name: &'static str,
    registries_conf: &'static str,
    drop_ins: &'static [(&'static str, &'static str)],
    /// Keys and `USER:PASSWORD`.
    auths: &'static [(&'static str, &'static str)],
    /// A key of `credHelpers`.
    helper: Option<&'static str>,
    /// The registries whose certificates are in certs.d.
    certs: &'static [&'static str],
    /// The policy.json; without one, the machine's counts.
    policy: &'static str,
    image: &'static str,
    /// `REGISTRY/REPOSITORY [USER]` that the manifest came from; `None` where it's refused.
    served: Option<&'static str>,
    /// Registries that were asked before.
    before: &'static [&'static str],
}

/// What one tool did.
#[derive(Debug, PartialEq, Eq)]
struct Reached {
    /// Whether it has the image.
    done: bool,
    /// Who was asked for anything of an image, by name.
    asked: Vec<String>,
    /// Who gave the manifest, to whom.
    served: Option<String>,
}

impl Lab {
    fn new() -> Self {
        let directory = lab::tempdir().unwrap();
        let layout = Layout::create(&directory.path().join("layout")).unwrap();
        let image = Image::new().layer(Layer::new([Entry::file("word", "word")]));
        layout.add(&image, "1").unwrap();
        let origin = Registry::start().unwrap();
        let cache = Registry::builder().cache_of(&origin).start().unwrap();
        // Who a user is, a registry tells in its debug messages alone.
        let with_ann = || {
            Registry::builder()
                .user("ann", "secret:1")
                .set("/log/level", "debug")
        };
        let users = with_ann().user("bob", "secret:2");
        let registries = BTreeMap::from([
            ("cache", cache),
            ("empty", Registry::start().unwrap()),
            ("mirror", Registry::start().unwrap()),
            (
                "mutual",
                Registry::builder().client_certificates().start().unwrap(),
            ),
            ("origin", origin),
            ("tls", with_ann().tls().start().unwrap()),
            ("users", users.start().unwrap()),
        ]);
        let mut digest = None;
        for (name, registry) in &registries {
            for repository in REPOSITORIES.iter().filter(|_| !["empty", "cache"].contains(name)) {
                digest = Some(registry.place(&layout, "1", &format!("{repository}:1")).unwrap());
            }
        }
        Self {
            directory,
            registries,
            digest: digest.unwrap().to_string(),
        }
    }

    /// A text with the hosts of the registries, as `{NAME}`, the image's digest, and the directory of a
    /// layout.
    fn filled(&self, text: &str) -> String {
        let layout = self.directory.path().join("layout");
        let mut text = text
            .replace("{digest}", &self.digest)
            .replace("{layout}", layout.to_str().unwrap());
        for (name, registry) in &self.registries {
            text = text.replace(&format!("{{{name}}}"), &registry.host());
        }
        text
    }

    /// Writes a case's files as a user has them, and gives the user's home.
    fn home(&self, case: &Case) -> PathBuf {
        let home = self.directory.path().join("home");
        let _ = fs::remove_dir_all(&home);
        let write = |path: &str, text: &str| {
            let path = home.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, self.filled(text)).unwrap();
            path
        };
        write(".config/containers/registries.conf", case.registries_conf);
        if !case.policy.is_empty() {
            write(".config/containers/policy.json", case.policy);
        }
        for (name, text) in case.drop_ins {
            write(&format!(".config/containers/registries.conf.d/{name}"), text);
        }
        let auths = case.auths.iter().map(|(key, pair)| {
            let auth = STANDARD.encode(pair);
            format!(r#""{key}":{{"auth":"{auth}"}}"#)
        });
        let auths: Vec<String> = auths.collect();
        let helpers = case.helper.map(|key| format!(r#""{key}":"landfall-test""#));
        let text = format!(
            r#"{{"auths":{{{}}},"credHelpers":{{{}}}}}"#,
            auths.join(","),
            helpers.unwrap_or_default()
        );
        write("run/containers/auth.json", &text);
        let script = "#!/bin/sh\nread -r server\necho '{\"ServerURL\":\"x\",\"Username\":\"bob\",\"Secret\":\"secret:2\"}'\n";
        let helper = write("bin/docker-credential-landfall-test", script);
        fs::set_permissions(helper, fs::Permissions::from_mode(0o755)).unwrap();
        for name in case.certs {
            let registry = &self.registries[name];
            let directory = home.join(".config/containers/certs.d").join(registry.host());
            fs::create_dir_all(&directory).unwrap();
            fs::copy(registry.ca().unwrap(), directory.join("ca.crt")).unwrap();
            if let Some(client) = registry.client() {
                fs::copy(&client.certificate, directory.join("client.cert")).unwrap();
                fs::copy(&client.key, directory.join("client.key")).unwrap();
            }
        }
        home
    }

    /// Runs a tool, and reads from the logs what it did.
    fn reached(&self, command: &mut Command, home: &Path) -> (Reached, String) {
        let before: BTreeMap<_, _> = self
            .registries
            .iter()
            .map(|(name, registry)| (*name, registry.log().len()))
            .collect();
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", home.join("bin").display());
        let output = command
            .env_clear()
            .envs([("PATH", path.as_str()), ("HOME", home.to_str().unwrap())])
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if let Some(registry) = self.registries.values().next() {
            registry.let_it_log();
        }
        let mut reached = Reached {
            done: output.status.success(),
            asked: Vec::new(),
            served: None,
        };
        for (name, registry) in &self.registries {
            let log = registry.log().split_off(before[name]);
            // What the cache asks for is its own affair.
            let own = |line: &&str| !line.contains("Go-http-client");
            let requests: Vec<&str> = log
                .lines()
                .filter(own)
                .filter(|line| line.contains("\"GET /v2/"))
                .collect();
            if requests.iter().any(|line| !line.contains("\"GET /v2/ ")) {
                reached.asked.push(name.to_string());
            }
            let manifest = requests
                .iter()
                .rfind(|line| line.contains("/manifests/") && line.contains("\" 200 "));
            if let Some(line) = manifest {
                let path = line.split("\"GET /v2/").nth(1).unwrap();
                let repository = path.split("/manifests/").next().unwrap();
                let user = log
                    .split("auth.user.name=")
                    .nth(1)
                    .map(|rest| rest.split_whitespace().next().unwrap());
                let served = [Some(format!("{name}/{repository}")), user.map(Into::into)];
                reached.served = Some(served.into_iter().flatten().collect::<Vec<_>>().join(" "));
            }
        }
        if !output.status.success() {
            reached.served = None;
        }
        (reached, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn podman(&self, image: &str, home: &Path) -> (Reached, String) {
        // Podman wants the path to be short.
        let storage = tempfile::tempdir_in("/tmp").unwrap();
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(storage.path().join("root"))
            .arg("--runroot")
            .arg(storage.path().join("run"))
            .args([
                "--storage-driver=vfs",
                "--cgroup-manager=cgroupfs",
                "--events-backend=none",
            ])
            .args(["pull", "--quiet", image]);
        self.reached(&mut command, home)
    }

    fn landfall(&self, image: &str, home: &Path) -> (Reached, String) {
        let layout = home.join("layout");
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        command
            .args(["pull", image, "--retries=1", "--to"])
            .arg(format!("oci:{}", layout.display()));
        self.reached(&mut command, home)
    }

    fn check(&self, case: &Case) {
        let home = self.home(case);
        let image = self.filled(case.image);
        let (podman, podman_said) = self.podman(&image, &home);
        let (landfall, landfall_said) = self.landfall(&image, &home);
        let said = format!("{}\npodman: {podman_said}\nlandfall: {landfall_said}", case.name);
        let mut asked: Vec<String> = case.before.iter().map(ToString::to_string).collect();
        asked.extend(case.served.map(|served| served.split('/').next().unwrap().into()));
        asked.sort();
        let expected = Reached {
            done: case.served.is_some(),
            asked,
            served: case.served.map(Into::into),
        };
        assert_eq!(landfall, expected, "{said}");
        assert_eq!(podman, expected, "{said}");
        for secret in ["secret:1", "secret:2"] {
            assert!(!landfall_said.contains(secret), "{landfall_said}");
        }
    }
}

const MOVED: &str = "[[registry]]\nprefix = 'reg.lab'\nlocation = '{origin}/real'\ninsecure = true\n";

#[test]
fn podman_and_landfall_go_the_same_ways() {
    let lab = Lab::new();
    let cases = [
        Case {
            name: "a location",
            registries_conf: MOVED,
            image: "reg.lab/os/web:1",
            served: Some("origin/real/os/web"),
            ..Case::default()
        },
        Case {
            name: "the longest prefix",
            registries_conf: "[[registry]]\nprefix = 'reg.lab'\nlocation = '{empty}'\n\
                [[registry]]\nprefix = 'reg.lab/os/web'\nlocation = '{mirror}/near/os/web'\ninsecure = true\n\
                [[registry]]\nprefix = '*.lab'\nlocation = '{empty}/x'\n",
            image: "reg.lab/os/web:1",
            served: Some("mirror/near/os/web"),
            ..Case::default()
        },
        Case {
            name: "a wildcard",
            registries_conf: "[[registry]]\nprefix = '*.lab'\nlocation = '{origin}/real'\ninsecure = true\n",
            image: "any.reg.lab/os/web:1",
            served: Some("origin/real/os/web"),
            ..Case::default()
        },
        Case {
            name: "a drop-in",
            registries_conf: MOVED,
            drop_ins: &[
                (
                    "10-a.conf",
                    "[[registry]]\nprefix = 'reg.lab'\nlocation = '{empty}'\n",
                ),
                (
                    "20-b.conf",
                    "[[registry]]\nprefix = 'reg.lab'\nlocation = '{mirror}/near'\ninsecure = true\n",
                ),
                ("30-c.txt", "no TOML"),
            ],
            image: "reg.lab/os/web:1",
            served: Some("mirror/near/os/web"),
            ..Case::default()
        },
        Case {
            name: "a mirror",
            registries_conf: "[[registry]]\nprefix = 'reg.lab'\nlocation = '{origin}/real'\ninsecure = true\n\
                [[registry.mirror]]\nlocation = '{mirror}/near'\ninsecure = true\n",
            image: "reg.lab/os/web:1",
            served: Some("mirror/near/os/web"),
            ..Case::default()
        },
        Case {
            name: "mirrors that fail",
            registries_conf: "[[registry]]\nprefix = 'reg.lab'\nlocation = '{origin}/real'\ninsecure = true\n\
                [[registry.mirror]]\nlocation = '127.0.0.1:1'\ninsecure = true\n\
                [[registry.mirror]]\nlocation = '{empty}'\ninsecure = true\n\
                [[registry.mirror]]\nlocation = '{mirror}/near'\n",
            image: "reg.lab/os/web:1",
            served: Some("origin/real/os/web"),
            before: &["empty"],
            ..Case::default()
        },
        Case {
            name: "a pull-through cache",
            registries_conf: "[[registry]]\nprefix = 'reg.lab'\nlocation = '127.0.0.1:1'\n\
                [[registry.mirror]]\nlocation = '{cache}/real'\ninsecure = true\n",
            image: "reg.lab/os/web:1",
            served: Some("cache/real/os/web"),
            ..Case::default()
        },
        Case {
            name: "a mirror for digests, by tag",
            registries_conf: "[[registry]]\nprefix = 'reg.lab'\nlocation = '{origin}/real'\ninsecure = true\n\
                mirror-by-digest-only = true\n[[registry.mirror]]\nlocation = '{mirror}/near'\ninsecure = true\n",
            image: "reg.lab/os/web:1",
            served: Some("origin/real/os/web"),
            ..Case::default()
        },
        Case {
            name: "a mirror for digests, by digest",
            registries_conf: "[[registry]]\nprefix = 'reg.lab'\nlocation = '{origin}/real'\ninsecure = true\n\
                mirror-by-digest-only = true\n[[registry.mirror]]\nlocation = '{mirror}/near'\ninsecure = true\n",
            image: "reg.lab/os/web@{digest}",
            served: Some("mirror/near/os/web"),
            ..Case::default()
        },
        Case {
            name: "a mirror for tags, by digest",
            registries_conf: "[[registry]]\nprefix = 'reg.lab'\nlocation = '{origin}/real'\ninsecure = true\n\
                [[registry.mirror]]\nlocation = '{mirror}/near'\ninsecure = true\npull-from-mirror = 'tag-only'\n",
            image: "reg.lab/os/web@{digest}",
            served: Some("origin/real/os/web"),
            ..Case::default()
        },
        Case {
            name: "blocked",
            registries_conf: "[[registry]]\nlocation = '{origin}'\ninsecure = true\nblocked = true\n",
            image: "{origin}/os/web:1",
            ..Case::default()
        },
        Case {
            name: "blocked, but for a mirror",
            registries_conf: "[[registry]]\nlocation = '{origin}'\nblocked = true\n\
                [[registry.mirror]]\nlocation = '{mirror}/near'\ninsecure = true\n",
            image: "{origin}/os/web:1",
            served: Some("mirror/near/os/web"),
            ..Case::default()
        },
        Case {
            name: "not insecure",
            registries_conf: "[[registry]]\nlocation = '{origin}'\n",
            image: "{origin}/os/web:1",
            ..Case::default()
        },
        Case {
            name: "a table that names nothing",
            registries_conf: "[[registry]]\ninsecure = true\n",
            image: "{origin}/os/web:1",
            ..Case::default()
        },
        Case {
            name: "credentials by host",
            registries_conf: "[[registry]]\nlocation = '{users}'\ninsecure = true\n",
            auths: &[("{users}", "ann:secret:1")],
            image: "{users}/os/web:1",
            served: Some("users/os/web ann"),
            ..Case::default()
        },
        Case {
            name: "credentials by the longest prefix",
            registries_conf: "[[registry]]\nlocation = '{users}'\ninsecure = true\n",
            auths: &[
                ("{users}", "ann:secret:1"),
                ("{users}/os", "bob:secret:2"),
                ("{users}/os/web/x", "ann:secret:1"),
            ],
            image: "{users}/os/web:1",
            served: Some("users/os/web bob"),
            ..Case::default()
        },
        Case {
            name: "credentials of the mirror, not of the image",
            registries_conf: "[[registry]]\nprefix = 'reg.lab'\nlocation = '{origin}/real'\ninsecure = true\n\
                [[registry.mirror]]\nlocation = '{users}/near'\ninsecure = true\n",
            auths: &[("reg.lab", "bob:secret:2"), ("{users}/near", "ann:secret:1")],
            image: "reg.lab/os/web:1",
            served: Some("users/near/os/web ann"),
            ..Case::default()
        },
        Case {
            name: "a credential helper",
            registries_conf: "[[registry]]\nlocation = '{users}'\ninsecure = true\n",
            auths: &[("{users}", "ann:secret:1")],
            helper: Some("{users}"),
            image: "{users}/os/web:1",
            served: Some("users/os/web bob"),
            ..Case::default()
        },
        Case {
            name: "wrong credentials",
            registries_conf: "[[registry]]\nlocation = '{users}'\ninsecure = true\n",
            auths: &[("{users}", "ann:secret:2")],
            image: "{users}/os/web:1",
            before: &["users"],
            ..Case::default()
        },
        Case {
            name: "a private authority",
            auths: &[("{tls}", "ann:secret:1")],
            certs: &["tls"],
            image: "{tls}/os/web:1",
            served: Some("tls/os/web ann"),
            ..Case::default()
        },
        Case {
            name: "an authority nobody knows",
            auths: &[("{tls}", "ann:secret:1")],
            image: "{tls}/os/web:1",
            ..Case::default()
        },
        Case {
            name: "a client certificate",
            certs: &["mutual"],
            image: "{mutual}/os/web:1",
            served: Some("mutual/os/web"),
            ..Case::default()
        },
        Case {
            name: "a mirror with a client certificate",
            registries_conf: "[[registry]]\nlocation = 'reg.lab'\n[[registry.mirror]]\nlocation = '{mutual}/near'\n",
            certs: &["mutual"],
            image: "reg.lab/os/web:1",
            served: Some("mutual/near/os/web"),
            ..Case::default()
        },
    ];
    for case in &cases {
        lab.check(case);
    }
}

const SIGNED: &str = r#"[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/nonexistent.gpg"}]"#;

/// A policy, and whether it accepts an image.
struct Verdict {
    /// What is said of all that nothing else is said of.
    default: &'static str,
    transports: &'static str,
    image: &'static str,
    accepted: bool,
}

impl Lab {
    /// `link` leads to the lab's layout.
    fn judge(&self, verdict: &Verdict, link: &Path) {
        let requirements = |text: &str| {
            text.replace("ACCEPT", r#"[{"type":"insecureAcceptAnything"}]"#)
                .replace("REJECT", r#"[{"type":"reject"}]"#)
                .replace("SIGNED", SIGNED)
        };
        let (default, transports) = (requirements(verdict.default), requirements(verdict.transports));
        let policy = format!(r#"{{"default":{default},"transports":{{{transports}}}}}"#);
        let case = Case {
            registries_conf: MIRRORED,
            policy: policy.leak(),
            ..Case::default()
        };
        let home = self.home(&case);
        let image = self
            .filled(verdict.image)
            .replace("{link}", link.to_str().unwrap());
        let (podman, podman_said) = self.podman(&image, &home);
        let (landfall, landfall_said) = self.landfall(&image, &home);
        let said = format!(
            "{}\n{image}\npodman: {podman_said}\nlandfall: {landfall_said}",
            case.policy
        );
        assert_eq!(podman.done, verdict.accepted, "{said}");
        assert_eq!(landfall.done, verdict.accepted, "{said}");
        if !verdict.accepted {
            assert_eq!(landfall.asked, [""; 0], "{said}");
            assert!(landfall_said.contains(".config/containers/policy.json"), "{said}");
        }
    }
}

const MIRRORED: &str = "[[registry]]\nprefix = 'reg.lab:5000'\nlocation = '{origin}/real'\ninsecure = true\n\
    [[registry.mirror]]\nlocation = '{mirror}/near'\ninsecure = true\n";

#[test]
fn podman_and_landfall_accept_the_same_images() {
    let lab = Lab::new();
    // Podman makes a name of the path, in which it wants no capital letters.
    let unique = format!("landfall-{}", std::process::id());
    let place = tempfile::Builder::new()
        .prefix(&unique)
        .rand_bytes(0)
        .tempdir_in("/tmp")
        .unwrap();
    let link = place.path().join("layout");
    symlink(lab.directory.path().join("layout"), &link).unwrap();
    let row = |default, transports, image, accepted| Verdict {
        default,
        transports,
        image,
        accepted,
    };
    const IMAGE: &str = "reg.lab:5000/os/web:1";
    for verdict in [
        row("ACCEPT", "", IMAGE, true),
        row("REJECT", "", IMAGE, false),
        row("SIGNED", "", IMAGE, false),
        row("REJECT", r#""docker":{"":ACCEPT}"#, IMAGE, true),
        row("REJECT", r#""docker":{"reg.lab:5000":ACCEPT}"#, IMAGE, true),
        // A port is a part of the name, but for wildcards.
        row("REJECT", r#""docker":{"reg.lab":ACCEPT}"#, IMAGE, false),
        row("REJECT", r#""docker":{"*.lab":ACCEPT}"#, IMAGE, true),
        row("REJECT", r#""docker":{"*.reg.lab":ACCEPT}"#, IMAGE, false),
        row(
            "ACCEPT",
            r#""docker":{"reg.lab:5000/os":REJECT,"reg.lab:5000":ACCEPT}"#,
            IMAGE,
            false,
        ),
        row("ACCEPT", r#""docker":{"reg.lab:5000/o":REJECT}"#, IMAGE, true),
        row(
            "ACCEPT",
            r#""docker":{"reg.lab:5000/os/web:1":SIGNED,"reg.lab:5000/os/web":ACCEPT}"#,
            IMAGE,
            false,
        ),
        row(
            "ACCEPT",
            r#""docker":{"reg.lab:5000/os/web:2":REJECT}"#,
            IMAGE,
            true,
        ),
        row(
            "REJECT",
            r#""docker":{"reg.lab:5000/os/web@{digest}":ACCEPT}"#,
            "reg.lab:5000/os/web@{digest}",
            true,
        ),
        row(
            "REJECT",
            r#""docker":{"reg.lab:5000/os/web@{digest}":ACCEPT}"#,
            IMAGE,
            false,
        ),
        row(
            "REJECT",
            r#""docker":{"reg.lab:5000/os/web@{digest}":ACCEPT}"#,
            "reg.lab:5000/os/web:1@{digest}",
            true,
        ),
        // Where an image really comes from doesn't count.
        row(
            "ACCEPT",
            r#""docker":{"{mirror}":REJECT,"{origin}":REJECT}"#,
            IMAGE,
            true,
        ),
        row(
            "REJECT",
            r#""docker":{"{mirror}":ACCEPT,"{origin}":ACCEPT}"#,
            IMAGE,
            false,
        ),
        row("REJECT", r#""oci":{"":ACCEPT}"#, IMAGE, false),
        row("REJECT", r#""oci":{"{layout}":ACCEPT}"#, "oci:{link}:1", true),
        row(
            "ACCEPT",
            r#""oci":{"{layout}":REJECT}"#,
            "oci:{link}/../layout:1",
            false,
        ),
        row(
            "REJECT",
            r#""oci-archive":{"{layout}":ACCEPT}"#,
            "oci:{link}:1",
            false,
        ),
        // What is wrong anywhere in the file.
        row("[]", "", IMAGE, false),
        row(
            "ACCEPT",
            r#""docker":{"other.lab":[{"type":"accept"}]}"#,
            IMAGE,
            false,
        ),
        row(
            "ACCEPT",
            r#""docker":{"other.lab":[{"type":"reject","x":1}]}"#,
            IMAGE,
            false,
        ),
        row(
            "ACCEPT",
            r#""docker":{"other.lab":REJECT,"other.lab":ACCEPT}"#,
            IMAGE,
            false,
        ),
        row("ACCEPT", r#""oci":{"relative":REJECT}"#, IMAGE, false),
        row("ACCEPT", r#""nonsense":{"relative":REJECT}"#, IMAGE, true),
    ] {
        lab.judge(&verdict, &link);
    }
}

/// The lab's registries, and Landfall with these arguments; what it says, if it succeeds or not.
fn run(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn a_registry_that_wants_a_client_certificate_is_understood() {
    let registry = Registry::builder().client_certificates().start().unwrap();
    let (image, ca) = (format!("{}/os/web:1", registry.host()), registry.ca().unwrap());
    let (success, said) = run(&["inspect", &image, "--ca-cert", ca.to_str().unwrap()]);
    assert!(
        !success
            && said.contains("wants a client certificate that it knows (")
            && said.contains("certs.d/HOST:PORT"),
        "{said}"
    );
}

/// An image whose lower layer is large, at a mirror and at the registry itself.
struct Mirrored {
    directory: tempfile::TempDir,
    mirror: Registry,
    origin: Registry,
    noise: Vec<u8>,
    layer: Digest,
}

impl Mirrored {
    fn new() -> Self {
        let directory = lab::tempdir().unwrap();
        let layout = Layout::create(&directory.path().join("layout")).unwrap();
        let noise = noise(1, 4 << 20);
        let image = Image::new()
            .layer(Layer::new([Entry::file("noise", noise.clone())]))
            .layer(Layer::new([Entry::file("word", "word")]));
        layout.add(&image, "1").unwrap();
        let (mirror, origin) = (Registry::start().unwrap(), Registry::start().unwrap());
        for registry in [&mirror, &origin] {
            registry.place(&layout, "1", "os/web:1").unwrap();
        }
        let layer = Digest::in_descriptor(&layout.manifest("1").unwrap()["layers"][0]).unwrap();
        Self {
            directory,
            mirror,
            origin,
            noise,
            layer,
        }
    }

    /// Unpacks it, with what is at `mirror` as its mirror; gives what was said.
    fn unpack(&self, mirror: &str) -> String {
        let to = self.directory.path().join("root");
        let image = format!("{}/os/web:1", self.origin.host());
        let to = to.to_str().unwrap();
        let options = ["--tls-verify=false", "--progress=plain", "--mirror", mirror];
        let (success, said) = run(&[&["unpack", &image, "--to", to][..], &options].concat());
        assert!(success, "{said}");
        assert_eq!(fs::read(Path::new(to).join("noise")).unwrap(), self.noise);
        said
    }

    /// How many blobs the registry itself was asked for. It gave no manifest.
    fn blobs_of_origin(&self) -> usize {
        self.origin.let_it_log();
        let requests = self.origin.requests();
        assert!(
            !requests.iter().any(|(_, path, _)| path.contains("/manifests/")),
            "{requests:?}"
        );
        requests
            .iter()
            .filter(|(_, path, _)| path.contains("/blobs/"))
            .count()
    }
}

#[test]
fn a_layer_that_a_mirror_has_damaged_comes_from_the_next() {
    let lab = Mirrored::new();
    let (mirror, origin) = (lab.mirror.host(), lab.origin.host());
    lab::image::flip_byte(&lab.mirror.blob(&lab.layer), 1 << 20).unwrap();
    let said = lab.unpack(&mirror);
    let told = format!(
        "mirror {mirror} sent other bytes for blob {}; asking {origin}",
        lab.layer
    );
    assert!(said.contains(&told), "{said}");
    assert_eq!(lab.blobs_of_origin(), 1);

    let (image, to) = (format!("{origin}/os/web:1"), lab.directory.path().join("pulled"));
    let to = format!("oci:{}", to.display());
    let options = ["--tls-verify=false", "--progress=plain", "--mirror", &mirror];
    let (success, said) = run(&[&["pull", &image, "--to", &to][..], &options].concat());
    assert!(success && said.contains(&told), "{said}");
}

#[test]
fn a_mirror_that_dies_in_the_middle_of_a_layer_hands_over() {
    let lab = Mirrored::new();
    let blob = format!("/blobs/{}", lab.layer);
    let faults = vec![Fault::Cut(At::Middle), Fault::HangUp];
    let dying = Faulty::start(
        &lab.mirror.host(),
        vec![Rule {
            part: blob.clone(),
            faults,
            and_so_on: true,
        }],
    );
    let said = lab.unpack(&dying.host());
    let told = format!(
        "registry {}, asked for blob {}, broke off",
        dying.host(),
        lab.layer
    );
    assert!(
        said.contains(&told) && said.contains(&format!("; asking {}", lab.origin.host())),
        "{said}"
    );
    // What the mirror had given wasn't asked for again.
    lab.origin.let_it_log();
    let log = lab.origin.log();
    let rest = log
        .lines()
        .find(|line| line.contains("\"GET ") && line.contains(&blob));
    assert!(rest.is_some_and(|line| line.contains("\" 206 ")), "{log}");
}
