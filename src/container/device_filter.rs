//! Which devices the image's programs can open, and make nodes of: rules as data, made into a program that the
//! kernel runs. Numbers are all that counts; names and nodes don't.

mod program;
mod rules;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::sys::bpf::{Hook, Map, Program};

use program::{program, read_only};
use rules::Kind;
pub use rules::{Rule, harmless, installing};

/// `BPF_DEVCG_ACC_MKNOD`, where it is all that was tried.
const MADE_ONLY: u32 = 1;
/// How many refused devices are remembered.
const MAX_REFUSED: u32 = 64;

/// The program for `rules`, and what notes its refusals.
pub fn load(rules: &[Rule]) -> nix::Result<(Program, Refusals)> {
    let map = Map::new(MAX_REFUSED)?;
    let program = Program::load(Hook::Device, &program(rules, &map))?;
    Ok((program, Refusals(map)))
}

/// The program that keeps the kernel's settings from being changed.
pub fn load_read_only_settings() -> nix::Result<Program> {
    Program::load(Hook::Sysctl, &read_only())
}

/// The devices that were refused.
pub struct Refusals(Map);

impl Refusals {
    /// In words that go after "the image tried to".
    pub fn told(&self) -> nix::Result<Vec<String>> {
        let mut entries = self.0.entries()?;
        entries.sort_unstable();
        Ok(entries.into_iter().map(|(key, tried)| told(key, tried)).collect())
    }
}

fn told([kind, major, minor]: [u32; 3], tried: u32) -> String {
    let what = if tried == MADE_ONLY {
        "make a node of"
    } else {
        "open"
    };
    let (kind, folder) = match kind {
        kind if kind == Kind::Block as u32 => ("block", "block"),
        _ => ("character", "char"),
    };
    let number = format!("{major}:{minor}");
    let found = fs::canonicalize(Path::new("/sys/dev").join(folder).join(&number)).ok();
    let name = found
        .as_deref()
        .and_then(Path::file_name)
        .map(OsStr::to_string_lossy);
    let name = name.map(|name| format!(" (/dev/{name})")).unwrap_or_default();
    format!("{what} the {kind} device {number}{name}")
}
