//! A TPM 2.0 made of software: swtpm, one process for each time that a machine is switched on.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::command::Guarded;

/// A TPM that runs; dropping it ends its process.
pub struct Tpm {
    _child: Guarded,
}

impl Tpm {
    /// Starts one that keeps its keys in `state` and listens at `socket`.
    pub fn start(state: &Path, socket: &Path) -> Result<Self> {
        // The socket is there before the process is: QEMU need not wait for it.
        let listener =
            UnixListener::bind(socket).with_context(|| format!("listening at {}", socket.display()))?;
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--terminate", "--ctrl", "type=unixio,fd=0"])
            .arg("--tpmstate")
            .arg(format!("dir={}", state.display()))
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .spawn()
            .context("starting swtpm; `cargo xtask setup` installs it")?;
        Ok(Self {
            _child: Guarded(child),
        })
    }

    /// What QEMU is told of the one that listens at `socket`.
    pub fn options(socket: &Path) -> [String; 6] {
        [
            "-chardev".into(),
            format!("socket,id=tpm,path={}", socket.display()),
            "-tpmdev".into(),
            "emulator,id=tpm0,chardev=tpm".into(),
            "-device".into(),
            "tpm-crb,tpmdev=tpm0".into(),
        ]
    }
}
