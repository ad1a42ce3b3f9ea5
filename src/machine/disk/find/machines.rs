//! Which disk is taken on machines that `tests/hints/machines.py` describes, against what
//! ironic-python-agent's own code takes there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::choose::choose;
use super::discover::disks_in;
use super::hints::Hints;

const MACHINES: &str = include_str!("../../../../tests/hints/machines.json");

#[derive(Deserialize)]
struct Machine {
    what: String,
    disks: Vec<Device>,
    /// Hints, none for the obvious disk, and the node of the disk that is taken.
    choices: Vec<(Value, Option<String>)>,
    /// The disks that are left alone here and not there, and why.
    refused: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Device {
    name: String,
    at: String,
    files: BTreeMap<String, String>,
    #[serde(default)]
    links: BTreeMap<String, String>,
    #[serde(default)]
    host: BTreeMap<String, String>,
}

fn write(file: &Path, content: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
}

fn link(target: &Path, path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}

/// Makes what stands for `/sys`, and returns what stands for `/sys/block`.
fn build(machine: &Machine, root: &Path) -> PathBuf {
    let devices = root.join("devices");
    for device in &machine.disks {
        let own = devices.join(&device.at).join("block").join(&device.name);
        link(&devices.join(&device.at), &own.join("device"));
        device
            .files
            .iter()
            .for_each(|(name, content)| write(&own.join(name), content));
        device
            .links
            .iter()
            .for_each(|(name, target)| link(&devices.join(target), &own.join(name)));
        device
            .host
            .iter()
            .for_each(|(name, content)| write(&devices.join(name), content));
        link(&own, &root.join("block").join(&device.name));
    }
    root.join("block")
}

#[test]
fn the_disk_is_the_one_that_ironic_python_agent_takes() {
    let machines: Vec<Machine> = serde_json::from_str(MACHINES).unwrap();
    for machine in &machines {
        let root = tempfile::tempdir().unwrap();
        let found = disks_in(&build(machine, root.path())).unwrap();
        for (hints, theirs) in &machine.choices {
            let hints = Hints::from_json(hints).unwrap();
            let (ours, rejected) = match choose(&found, &hints) {
                Ok((chosen, rejected)) => (Some(chosen.disk.name), rejected),
                Err(none) => (None, none.rejected),
            };
            let said = |name: &String| {
                let rejected = rejected.iter().find(|each| each.name == *name);
                rejected.map(|each| each.because.as_str())
            };
            let refused = theirs.as_ref().and_then(|name| machine.refused.get(name));
            match (theirs, refused) {
                (Some(theirs), Some(why)) if ours.as_ref() != Some(theirs) => {
                    assert_eq!(said(theirs), Some(why.as_str()), "{}: {hints:?}", machine.what);
                }
                _ => assert_eq!(ours, *theirs, "{}: {hints:?}: {rejected:#?}", machine.what),
            }
        }
    }
    let choices = machines.iter().flat_map(|machine| &machine.choices);
    assert!(choices.count() > 50);
}
