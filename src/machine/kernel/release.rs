//! How old the running kernel is.

use anyhow::{Context, Result};
use nix::sys::utsname::uname;

/// The kernel's release, such as `6.12.5-amd64`.
pub fn release() -> Result<String> {
    Ok(uname().context("uname")?.release().to_string_lossy().into_owned())
}

/// Whether a kernel of this release is of this version, major and minor, or a newer one.
pub fn is_since(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(version.0), Some(version.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_older_or_newer_than_a_version() {
        for (release, newer) in [
            ("5.14.0-503.el9.x86_64", false),
            ("6.8.0-31-generic", false),
            ("6.12-rc1", true),
            ("6.18.4", true),
            ("7.0.0", true),
        ] {
            assert_eq!(is_since(release, (6, 12)), newer, "{release}");
        }
    }
}
