//! The kernel asks for modules too: when somebody mounts a file system, sets up a cipher, names a character
//! set. It does so by running a program, which elsewhere is modprobe(8) and here is this one.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, anyhow};

/// Lets the kernel call this program for modules. Does nothing where another program is there for it.
pub fn answer_the_kernel() -> Result<()> {
    let setting = "/proc/sys/kernel/modprobe";
    let path = fs::read_to_string(setting).with_context(|| format!("reading {setting}"))?;
    let path = Path::new(path.trim_end());
    if path.exists() || !path.is_absolute() {
        return Ok(());
    }
    let own = fs::read_link("/proc/self/exe").context("readlink(/proc/self/exe)")?;
    let dir = path
        .parent()
        .ok_or_else(|| anyhow!("{setting} does not hold a file path"))?;
    fs::create_dir_all(dir).with_context(|| format!("mkdir({})", dir.display()))?;
    symlink(&own, path).with_context(|| format!("symlink({}, {})", own.display(), path.display()))
}

/// The names that the kernel asks for, if that is how this program was called: `modprobe -q -- NAME`.
pub fn asked_by_kernel(arguments: &[OsString]) -> Option<Vec<&str>> {
    let (program, words) = arguments.split_first()?;
    if Path::new(program).file_name() != Some(OsStr::new("modprobe")) {
        return None;
    }
    let names = words.iter().filter_map(|word| word.to_str());
    Some(names.filter(|word| !word.starts_with('-')).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_call_is_told_from_others() {
        for (arguments, names) in [
            ("/sbin/modprobe -q -- fs-vfat", Some(vec!["fs-vfat"])),
            ("modprobe overlay loop", Some(vec!["overlay", "loop"])),
            ("/init quiet", None),
            ("landfall install modprobe", None),
        ] {
            let arguments: Vec<_> = arguments.split(' ').map(OsString::from).collect();
            assert_eq!(asked_by_kernel(&arguments), names, "{arguments:?}");
        }
        assert_eq!(asked_by_kernel(&[]), None);
    }
}
