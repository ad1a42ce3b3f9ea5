//! A kernel that can install, as far as its files in `/proc` tell. Images that only pretend to install need
//! none of what a real one asks of the kernel; with this, the tests do the same under every kernel.

use std::ffi::OsStr;
use std::process::Command;

/// Says in `/proc/filesystems` that there is FAT, and becomes the program; in a mount namespace that nobody
/// else sees.
const WITH_FAT: &str = r#"
set -e
told=$(mktemp)
{ cat /proc/filesystems; printf '\tvfat\n\text4\n'; } >"$told"
mount --bind "$told" /proc/filesystems
printf "$SYMBOLS" >"$told.symbols"
mount --bind "$told.symbols" /proc/kallsyms
rm "$told" "$told.symbols"
exec "$@"
"#;
/// The kernel's function that reads a GUID Partition Table.
const GPT_FUNCTION: &str = r"0000000000000000 T efi_partition\n";

/// The beginning of a shell command that runs `program arguments …` under such a kernel.
pub fn shell_prefix() -> String {
    let script = WITH_FAT.replace('\'', r"'\''");
    format!("SYMBOLS='{GPT_FUNCTION}' unshare --mount sh -c '{script}' sh")
}

/// The command `program` under such a kernel. Needs root.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    telling(GPT_FUNCTION, program)
}

/// The command `program` under a kernel that has FAT and doesn't tell what functions it has.
pub fn secretive(program: impl AsRef<OsStr>) -> Command {
    telling("", program)
}

fn telling(symbols: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", WITH_FAT, "sh"])
        .arg(program)
        .env("SYMBOLS", symbols);
    command
}
