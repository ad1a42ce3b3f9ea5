//! A real registry (Debian's `docker-registry`) on a loopback port of its own choice.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use lab::registry::Registry;
//! let registry = Registry::builder().user("ann", "secret").tls().start()?;
//! registry.push("target/layout".as_ref(), "1.4", "os/web:1.4")?;
//! println!("{}/os/web:1.4", registry.host());
//! # Ok(()) }
//! ```
//!
//! Its storage is a directory of files: [`Registry::blob`] names one, to be damaged. Nothing is printed; the
//! log is kept in [`Registry::log`] and shown when the registry doesn't start.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{self, Guarded};
use crate::image::{Digest, Layout};

pub mod tls;

/// How a registry is set up before it starts.
#[derive(Default)]
pub struct Builder {
    users: Vec<(String, String)>,
    tls: bool,
    clients: bool,
    network: Option<Network>,
    settings: Vec<(String, Value)>,
}

/// Where a registry listens, if that is not this machine's loopback.
struct Network {
    namespace: String,
    address: String,
}

impl Builder {
    /// Lets this user in, by password; with no user, everybody is let in.
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push((name.into(), password.into()));
        self
    }

    /// Speaks TLS only, with a certificate of a private CA made for this registry.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Lets only those in who have [`Registry::client`]'s certificate. Implies [`Builder::tls`].
    pub fn client_certificates(mut self) -> Self {
        self.tls = true;
        self.clients = true;
        self
    }

    /// Is a pull-through cache of another registry.
    pub fn cache_of(self, other: &Registry) -> Self {
        let scheme = if other.ca.is_some() { "https" } else { "http" };
        self.set("/proxy/remoteurl", format!("{scheme}://{}", other.host()))
    }

    /// Listens on an address in a network namespace (of `ip netns`).
    pub fn network(mut self, namespace: &str, address: &str) -> Self {
        self.network = Some(Network {
            namespace: namespace.into(),
            address: address.into(),
        });
        self
    }

    /// Sets any key of the registry's configuration, by JSON pointer: `/proxy/remoteurl`, `/auth/token`.
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        self.settings.push((pointer.into(), value.into()));
        self
    }

    /// Starts it, and comes back when it listens.
    pub fn start(self) -> Result<Registry> {
        let directory = crate::tempdir()?;
        let ca = if self.tls {
            Some(tls::Authority::new(directory.path())?)
        } else {
            None
        };
        let mut config = self.config(directory.path(), ca.as_ref())?;
        let client = match &ca {
            Some(ca) if self.clients => {
                config["http"]["tls"]["clientcas"] = json!([ca.certificate]);
                Some(ca.issue("client", &["DNS:client"])?)
            }
            _ => None,
        };
        let config_file = directory.path().join("config.yml");
        fs::write(&config_file, serde_json::to_vec_pretty(&config)?)?; // JSON is YAML too
        let log = directory.path().join("log");
        let child = spawn(&config_file, &log, self.network.as_ref())?;
        let mut registry = Registry {
            child: Guarded(child),
            address: self.address().into(),
            port: 0,
            ca: ca.map(|ca| ca.certificate),
            client,
            log,
            directory,
        };
        registry.port = registry.wait_for_port()?;
        Ok(registry)
    }

    fn address(&self) -> &str {
        self.network
            .as_ref()
            .map_or("127.0.0.1", |network| &network.address)
    }

    fn config(&self, directory: &Path, ca: Option<&tls::Authority>) -> Result<Value> {
        let mut config = json!({
            "version": "0.1",
            "log": { "level": "info", "formatter": "text" },
            "storage": {
                "filesystem": { "rootdirectory": directory.join("storage") },
                "delete": { "enabled": true },
            },
            "http": { "addr": format!("{}:0", self.address()) },
        });
        if let Some(ca) = ca {
            let server = ca.issue("server", &tls::SERVER_NAMES)?;
            config["http"]["tls"] = json!({ "certificate": server.certificate, "key": server.key });
        }
        if !self.users.is_empty() {
            let path = directory.join("htpasswd");
            fs::write(&path, htpasswd(&self.users)?)?;
            config["auth"] = json!({ "htpasswd": { "realm": "landfall", "path": path } });
        }
        for (pointer, value) in &self.settings {
            set(&mut config, pointer, value.clone());
        }
        Ok(config)
    }
}

fn htpasswd(users: &[(String, String)]) -> Result<String> {
    let line = |(name, password): &(String, String)| {
        command::filter(
            Command::new("htpasswd").args(["-n", "-i", "-B", "-C", "4", name]),
            password.as_bytes(),
        )
    };
    users.iter().map(line).collect()
}

fn set(config: &mut Value, pointer: &str, value: Value) {
    let place = pointer
        .trim_start_matches('/')
        .split('/')
        .fold(config, |node, key| &mut node[key]);
    *place = value;
}

fn spawn(config: &Path, log: &Path, network: Option<&Network>) -> Result<Child> {
    let log = File::create(log)?;
    let mut command = match network {
        Some(Network { namespace, .. }) => {
            let mut command = Command::new("ip");
            // It becomes the program that it starts, so there is one process to end.
            command.args(["netns", "exec", namespace, "docker-registry"]);
            command
        }
        None => Command::new("docker-registry"),
    };
    command
        .arg("serve")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting docker-registry; `cargo xtask setup` installs it")
}

/// A running registry; dropping it ends the process and removes what it stored.
pub struct Registry {
    child: Guarded,
    address: String,
    port: u16,
    ca: Option<PathBuf>,
    client: Option<tls::Identity>,
    log: PathBuf,
    directory: TempDir,
}

impl Registry {
    /// A registry that everybody may read and write, without TLS.
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// A registry still to be set up.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// `ADDRESS:PORT`, the first part of every image name here; the address is 127.0.0.1 unless it was set.
    pub fn host(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// The same registry as a virtual machine with QEMU's user network sees it.
    pub fn host_for_vm(&self) -> String {
        format!("10.0.2.2:{}", self.port)
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The private CA's certificate, for a registry with TLS.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// Who may come in, where only those with a certificate may.
    pub fn client(&self) -> Option<&tls::Identity> {
        self.client.as_ref()
    }

    /// Gives the registry time to log the answers that it has given: it writes a line after the last byte has
    /// gone.
    pub fn let_it_log(&self) {
        let mut before = self.log();
        loop {
            sleep(Duration::from_millis(50));
            let now = self.log();
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// What the registry logged so far, the access log with it.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The requests that were logged so far: method, path and status of each.
    pub fn requests(&self) -> Vec<(String, String, u16)> {
        self.log().lines().filter_map(logged_request).collect()
    }

    /// The file that holds a blob (or manifest), to be damaged.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.store()
            .join("blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }

    /// Pushes an image by skopeo, as a person would; no users, no TLS.
    pub fn push(&self, layout: &Path, tag: &str, name: &str) -> Result<()> {
        let source = format!("oci:{}:{tag}", layout.display());
        let target = format!("docker://{}/{name}", self.host());
        let options = ["--quiet", "--insecure-policy", "--dest-tls-verify=false"];
        command::run(
            Command::new("skopeo")
                .arg("copy")
                .args(options)
                .args([source, target]),
        )
    }

    /// Puts an image's exact bytes into the registry's storage, whatever they are: no client corrects or
    /// refuses them on the way, nothing is copied, and users and TLS don't matter. Damaged blobs stay
    /// damaged.
    pub fn place(&self, layout: &Layout, tag: &str, name: &str) -> Result<Digest> {
        let (repository, name_tag) = name.split_once(':').unwrap_or((name, "latest"));
        let repository = self.store().join("repositories").join(repository);
        let digest = layout.resolve(tag)?;
        for (blob, is_manifest) in layout.reachable(&digest)? {
            self.place_blob(layout, &blob)?;
            let links = if is_manifest {
                "_manifests/revisions"
            } else {
                "_layers"
            };
            link(&repository.join(links).join("sha256").join(blob.hex()), &blob)?;
        }
        let tag = repository.join("_manifests/tags").join(name_tag);
        link(&tag.join("current"), &digest)?;
        link(&tag.join("index/sha256").join(digest.hex()), &digest)?;
        Ok(digest)
    }

    /// Copies, so that what a test damages in the registry stays whole in the layout.
    fn place_blob(&self, layout: &Layout, digest: &Digest) -> Result<()> {
        let (from, to) = (layout.blob(digest), self.blob(digest));
        if to.exists() || !from.exists() {
            return Ok(());
        }
        fs::create_dir_all(to.parent().expect("blobs have a directory"))?;
        fs::copy(&from, &to)
            .with_context(|| format!("placing {}", from.display()))
            .map(drop)
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("storage/docker/registry/v2")
    }

    /// The kernel chose the port; the log tells which, once it accepts connections.
    fn wait_for_port(&mut self) -> Result<u16> {
        let guard = Instant::now();
        loop {
            if let Some(port) = listening_port(&self.log(), &self.address) {
                return Ok(port);
            }
            if let Some(status) = self.child.0.try_wait()? {
                bail!(
                    "docker-registry ended ({status}):\n{}",
                    command::last_lines(&self.log(), 20)
                );
            }
            if guard.elapsed() > Duration::from_secs(120) {
                bail!(
                    "docker-registry doesn't listen:\n{}",
                    command::last_lines(&self.log(), 20)
                );
            }
            sleep(Duration::from_millis(10));
        }
    }
}

fn link(directory: &Path, digest: &Digest) -> Result<()> {
    fs::create_dir_all(directory)?;
    Ok(fs::write(directory.join("link"), digest.to_string())?)
}

fn listening_port(log: &str, address: &str) -> Option<u16> {
    let (_, rest) = log.split_once(&format!("listening on {address}:"))?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A line of the access log: `ADDRESS - - [TIME] "GET /v2/ HTTP/1.1" 200 2 "" "AGENT"`.
fn logged_request(line: &str) -> Option<(String, String, u16)> {
    let (_, rest) = line.split_once("] \"")?;
    let (request, rest) = rest.split_once("\" ")?;
    let mut words = request.split(' ');
    let status = rest.split(' ').next()?.parse().ok()?;
    Some((words.next()?.into(), words.next()?.into(), status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_the_port() {
        let rows = [
            (
                r#"level=info msg="listening on 127.0.0.1:34567, tls" go.version=1"#,
                Some(34567),
            ),
            (r#"level=info msg="listening on 127.0.0.1:80""#, Some(80)),
            ("level=info msg=\"starting\"", None),
        ];
        for (log, port) in rows {
            assert_eq!(listening_port(log, "127.0.0.1"), port, "{log}");
        }
    }

    #[test]
    fn the_log_tells_requests() {
        let line =
            r#"10.0.0.1 - - [23/Nov/2026:18:00:00 +0000] "GET /v2/a/manifests/1 HTTP/1.1" 404 96 "" "x/1""#;
        let (method, path, status) = logged_request(line).unwrap();
        assert_eq!(
            (method.as_str(), path.as_str(), status),
            ("GET", "/v2/a/manifests/1", 404)
        );
        assert_eq!(logged_request("level=info msg=\"listening\""), None);
    }

    #[test]
    fn settings_reach_any_depth() {
        let mut config = json!({"http": {"addr": "x"}});
        set(&mut config, "/http/tls/clientcas", json!(["ca.pem"]));
        assert_eq!(
            config,
            json!({"http": {"addr": "x", "tls": {"clientcas": ["ca.pem"]}}})
        );
    }
}
