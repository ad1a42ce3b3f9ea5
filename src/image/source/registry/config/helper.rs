//! Credential helpers: programs called `docker-credential-NAME` that keep credentials (the protocol of
//! docker-credential-helpers).
//!
//! `get` is the only argument, the server's name goes to standard input, and JSON or an error comes from
//! standard output: bounded in size and time. What runs too long is killed with all its children.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use super::credentials::Credentials;
use crate::image::source::registry::error::clean;

/// No answer is larger than this, in bytes.
const MAX_BYTES: u64 = 64 << 10;
/// How long a helper may take. It may have to ask somebody else.
const LIMIT: Duration = Duration::from_secs(60);
/// What helpers say when they have nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user's name when the secret is an identity token.
const IDENTITY_TOKEN: &str = "<token>";
/// Docker's name for its own registry.
const DOCKER_SERVER: &str = "https://index.docker.io/v1/";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: Zeroizing<String>,
}

/// Asks the helper `name` for the credentials of `registry`; `None` if it has none.
pub async fn get(name: &str, registry: &str) -> Result<Option<Credentials>> {
    ensure!(
        !name.is_empty() && !name.contains('/'),
        "{name:?} is not the name of a credential helper"
    );
    let program = format!("docker-credential-{name}");
    let mut servers = vec![registry];
    servers.extend((registry == "docker.io").then_some(DOCKER_SERVER));
    for server in servers {
        let found = run(&program, server, LIMIT).await;
        let found = found.with_context(|| format!("asking {program} for the credentials of {server}"))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

async fn run(program: &str, server: &str, limit: Duration) -> Result<Option<Credentials>> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("starting it: install it, or give the credentials with --pull-secret or --authfile")?;
    let group = Group(child.id());
    let asked = tokio::time::timeout(limit, ask(&mut child, server)).await;
    let Ok(asked) = asked else {
        bail!("it said nothing for {} s", limit.as_secs());
    };
    let (success, output) = asked?;
    // It has ended: there is nobody to kill, and its number may soon be another's.
    group.disarm();
    answer(success, &output)
}

/// What it prints, and whether it was successful.
async fn ask(child: &mut Child, server: &str) -> Result<(bool, Zeroizing<Vec<u8>>)> {
    let mut input = child.stdin.take().context("no standard input")?;
    // A helper that doesn't read its input may still answer.
    let _ = input.write_all(server.as_bytes()).await;
    drop(input);
    let mut output = Zeroizing::new(Vec::new());
    let stdout = child.stdout.take().context("no standard output")?;
    stdout.take(MAX_BYTES + 1).read_to_end(&mut output).await?;
    ensure!(
        output.len() as u64 <= MAX_BYTES,
        "its answer is longer than {} KiB",
        MAX_BYTES >> 10
    );
    Ok((child.wait().await?.success(), output))
}

fn answer(success: bool, output: &[u8]) -> Result<Option<Credentials>> {
    if success {
        // The parser's own error might quote the secret.
        let Ok(Answer { username, secret }) = serde_json::from_slice(output) else {
            bail!("its answer is not of the form {{\"Username\": …, \"Secret\": …}}");
        };
        return Ok(match username.as_str() {
            _ if secret.is_empty() => None,
            IDENTITY_TOKEN => Some(Credentials::IdentityToken(secret)),
            _ => Some(Credentials::Password {
                user: username,
                password: secret,
            }),
        });
    }
    let said = String::from_utf8_lossy(output);
    if said.trim() == NOT_FOUND {
        return Ok(None);
    }
    // An explanation may be shown, an answer may not.
    if said.contains('{') {
        bail!("it failed");
    }
    bail!("it failed: {}", clean(&said))
}

/// Kills a group of processes when dropped, for whatever reason that is.
struct Group(Option<u32>);

impl Group {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // It may be gone already.
            let _ = killpg(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn helper(folder: &Path, script: &str) -> String {
        let path = folder.join("docker-credential-test");
        // Another program writes it: a file that this process has open for writing could not be run (ETXTBSY)
        // while another test starts a process, which has it open as well for a moment.
        let written = std::process::Command::new("sh")
            .args(["-c", r#"printf '%s\n' '#!/bin/sh' "$1" > "$0" && chmod +x "$0""#])
            .args([path.as_os_str(), script.as_ref()])
            .status();
        assert!(written.unwrap().success());
        path.to_str().unwrap().into()
    }

    #[tokio::test]
    async fn the_protocol() {
        let folder = tempfile::tempdir().unwrap();
        let echo = r#"test "$*" = get || exit 9; read -r server
            printf '{"ServerURL":"%s","Username":"bob","Secret":"for %s"}' "$server" "$server""#;
        let bob = Credentials::Password {
            user: "bob".into(),
            password: Zeroizing::new("for reg.lab:5000".into()),
        };
        let token = Credentials::IdentityToken(Zeroizing::new("t".into()));
        for (script, expected) in [
            (echo, Ok(Some(bob))),
            (r#"echo '{"Username":"<token>","Secret":"t"}'"#, Ok(Some(token))),
            (r#"echo '{"Username":"","Secret":""}'"#, Ok(None)),
            ("echo credentials not found in native keychain; exit 1", Ok(None)),
            (
                "echo the vault is locked; exit 1",
                Err("it failed: the vault is locked"),
            ),
            (r#"echo '{"Secret":"s3cret"}'; exit 1"#, Err("it failed")),
            (
                r#"echo '{"Username":5,"Secret":"s3cret"}'"#,
                Err("its answer is not of the form"),
            ),
            ("head -c 70000 /dev/zero", Err("its answer is longer than 64 KiB")),
        ] {
            let program = helper(folder.path(), script);
            match (run(&program, "reg.lab:5000", LIMIT).await, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{script}"),
                (Err(error), Err(expected)) => {
                    let error = format!("{error:#}");
                    assert!(
                        error.starts_with(expected) && !error.contains("s3cret"),
                        "{error}"
                    );
                }
                (found, _) => panic!("{script}: {found:?}"),
            }
        }
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let program = helper(folder.path(), "sleep 600");
        let asked = run(&program, "reg.lab", Duration::from_millis(1)).await;
        assert_eq!(asked.unwrap_err().to_string(), "it said nothing for 0 s");

        let pid_file = folder.path().join("pid");
        let script = format!(
            "sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait",
            pid_file.display()
        );
        let program = helper(folder.path(), &script);
        let started = async {
            while !pid_file.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            found = run(&program, "reg.lab", LIMIT) => panic!("{found:?}"),
            () = started => {}
        }
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        let alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).ok()?;
            // A zombie is dead; whoever inherits it may be slow.
            let state = stat.rsplit(')').next()?.trim().chars().next()?;
            (state != 'Z' && state != 'X').then_some(())
        };
        while alive().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn what_is_no_name_is_not_run() {
        for name in ["", "../x", "/bin/sh"] {
            let error = get(name, "reg.lab").await.unwrap_err().to_string();
            assert!(
                error.contains("is not the name of a credential helper"),
                "{error}"
            );
        }
    }
}
