//! What this process was started with: its arguments and its environment, which lie in its memory as the kernel
//! put them there, and which `/proc` shows. Nothing unsafe: it is here because siblings need it.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

/// The fields of `/proc/self/stat` after the program's name (proc_pid_stat(5)): `arg_start`, `env_end`.
const ARGUMENTS_START: usize = 48 - 3;
const ENVIRONMENT_END: usize = 51 - 3;

/// Overwrites `secret` with as many `x`, wherever it is in them. Who reads the environment at the same time
/// sees the one or the other, or some of both.
pub fn overwrite(secret: &[u8]) -> Result<()> {
    let memory = File::options().read(true).write(true).open("/proc/self/mem");
    let memory = memory.context("open(/proc/self/mem)")?;
    let stat = fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    let place = place(&stat).context("/proc/self/stat does not say where the arguments are")?;
    let mut bytes = vec![0; usize::try_from(place.end - place.start)?];
    memory
        .read_exact_at(&mut bytes, place.start)
        .context("reading the arguments")?;
    let cover = vec![b'x'; secret.len()];
    for at in positions(&bytes, secret) {
        memory
            .write_all_at(&cover, place.start + at as u64)
            .context("overwriting the arguments")?;
    }
    Ok(())
}

fn place(stat: &str) -> Option<Range<u64>> {
    // The name may have spaces and parentheses in it.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let field = |index: usize| fields.get(index)?.trim().parse().ok();
    Some(field(ARGUMENTS_START)?..field(ENVIRONMENT_END)?).filter(|place| place.start < place.end)
}

fn positions<'a>(bytes: &'a [u8], secret: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let windows = bytes.windows(secret.len().max(1)).enumerate();
    windows
        .filter(move |(_, window)| *window == secret)
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_arguments_are() {
        let fields: Vec<_> = (4..=52).map(|number| number.to_string()).collect();
        let stat = format!("1 (a (b) c) S {}\n", fields.join(" "));
        assert_eq!(place(&stat), Some(48..51));
        assert_eq!(place("1 (a) S 4 5"), None);
    }

    #[test]
    fn what_is_not_there_is_not_overwritten() {
        let before = fs::read("/proc/self/cmdline").unwrap();
        overwrite(b"no argument of any test").unwrap();
        overwrite(b"").unwrap();
        assert_eq!(fs::read("/proc/self/cmdline").unwrap(), before);
    }
}
