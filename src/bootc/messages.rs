//! What a failed bootc says about the reason.
//!
//! It ends with one error, `error: Installing to disk: …: …` (older ones: `ERROR …`), which may go on over
//! several lines: with what a program said that it ran, or with a debug dump of that program's arguments.
//! What its programs print themselves (bootupd, skopeo, mkfs) comes before that, their own errors last.

use crate::console::text::shortened;

/// How many lines of an error are told, and how many of those that were printed before it.
const ERROR_LINES: usize = 8;
const LINES_BEFORE: usize = 3;
/// How many lines are told where none of them is an error.
const LAST_LINES: usize = 15;

/// Why it failed, from all that it printed, to follow "failed with exit status 1".
pub fn reason(output: &[String]) -> String {
    let lines = without_dumps(output);
    let Some(own) = own_error(&lines) else {
        return match last(&lines, LAST_LINES) {
            [] => " and printed nothing".into(),
            last => format!("; its last lines were:{}", listed(last)),
        };
    };
    let (before, behind) = (&lines[..own], &lines[own + 1..]);
    // What its programs say is wrong comes after its own error, or just before it.
    let errors = before.iter().rev().take_while(|line| error_in(line).is_some());
    let (before, errors) = before.split_at(own - errors.count().min(ERROR_LINES));
    let behind = behind.iter().filter(|line| !is_log_entry(line));
    let behind: Vec<&String> = behind.take(ERROR_LINES).collect();
    let own = [&lines[own]].into_iter();
    let told = own.chain(errors).chain(behind.iter().copied());
    let text: String = told
        .map(|line| format!(": {}", shortened(error_in(line).unwrap_or(line.trim()))))
        .collect();
    match last(before, LINES_BEFORE) {
        lines if lines.is_empty() || !behind.is_empty() => text,
        lines => format!("{text}; before that it printed:{}", listed(lines)),
    }
}

/// Which line is bootc's own error: the last that says what failed for it, else the last error of anybody.
fn own_error(lines: &[String]) -> Option<usize> {
    let is_own = |line: &String| error_in(line).is_some_and(|error| error.starts_with("Installing to"));
    let own = lines.iter().rposition(is_own);
    own.or_else(|| lines.iter().rposition(|line| error_in(line).is_some()))
}

/// Whether a line is of podman's or skopeo's log, and nothing that ended them.
fn is_log_entry(line: &str) -> bool {
    line.starts_with("time=") && error_in(line).is_none()
}

/// What bootc's command line parser complains of, in one line.
pub fn complaint(said: &str) -> String {
    let lines = said.lines().map(str::trim);
    let lines = lines.skip_while(|line| !line.starts_with("error:"));
    let lines: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    match &lines[..] {
        [] => said.split_whitespace().collect::<Vec<_>>().join(" "),
        lines => lines.join(" ").trim_start_matches("error:").trim().into(),
    }
}

fn last(lines: &[String], count: usize) -> &[String] {
    &lines[lines.len().saturating_sub(count)..]
}

fn listed(lines: &[String]) -> String {
    let line = |line: &String| format!("\n  {}", shortened(line));
    lines.iter().map(line).collect()
}

/// What a line says if it is an error: of a Rust program, of podman, of skopeo's and podman's log, or a
/// panic.
fn error_in(line: &str) -> Option<&str> {
    let said = ["error: ", "Error: ", "ERROR: ", "ERROR ", "fatal: "];
    if let Some(error) = said.iter().find_map(|head| line.strip_prefix(head)) {
        return Some(error.trim());
    }
    if line.starts_with("thread '") && line.contains("panicked at") {
        return Some(line.trim_end_matches(':'));
    }
    let (_, logged) = line.split_once("level=fatal msg=")?;
    Some(logged.trim_matches('"'))
}

/// The lines, but a debug dump of a command over many lines is that command's words on one.
fn without_dumps(output: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut dump: Option<Dump> = None;
    for line in output {
        match &mut dump {
            None => match line.strip_suffix("Command {") {
                Some(head) => {
                    dump = Some(Dump {
                        head: head.into(),
                        ..Dump::default()
                    })
                }
                None => lines.push(line.clone()),
            },
            // Its last line begins in the first column, where none of the others does.
            Some(_) if line.starts_with('}') => lines.extend(dump.take().map(|dump| dump.line(&line[1..]))),
            Some(inner) => inner.add(line),
        }
    }
    // Its end was cut off.
    lines.extend(dump.map(|dump| dump.line("")));
    lines
}

/// A command as Rust's `{:#?}` writes it.
#[derive(Default)]
struct Dump {
    head: String,
    words: Vec<String>,
    in_args: bool,
}

impl Dump {
    fn add(&mut self, line: &str) {
        match line.trim() {
            "args: [" => self.in_args = true,
            "]," => self.in_args = false,
            word if self.in_args => {
                let word = word.trim_end_matches(',');
                self.words.push(word.trim_matches('"').into());
            }
            _ => {}
        }
    }

    /// All of it on one line, with what follows it.
    fn line(self, tail: &str) -> String {
        format!("{}{}{tail}", self.head, self.words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::text::SHORT_CHARS;

    #[test]
    fn a_refused_argument_in_one_line() {
        for (said, expected) in [
            (
                "error: unexpected argument '--nonsense' found\n\n  tip: a similar argument exists: '--none'\n\nUsage: x",
                "unexpected argument '--nonsense' found",
            ),
            (
                "error: invalid value 'x' for '--bootloader <BOOTLOADER>'\n  [possible values: grub, none]\n\nFor more",
                "invalid value 'x' for '--bootloader <BOOTLOADER>' [possible values: grub, none]",
            ),
            (
                "bootc: cannot execute:\n  no such file",
                "bootc: cannot execute: no such file",
            ),
        ] {
            assert_eq!(complaint(said), expected);
        }
    }

    fn reason_of(output: &str) -> String {
        reason(&output.lines().map(str::to_string).collect::<Vec<_>>())
    }

    /// Outputs as they are in bug reports and come of bootc's source, shortened, and what is told of them.
    #[test]
    fn the_reason_is_what_bootc_says_it_is() {
        for (what, output, expected) in [
            (
                "a command over many lines (bootc 1.9 and newer)",
                "Installing bootloader via bootupd\n\
                 Could not prepare Boot variable: Invalid argument\n\
                 error: boot data installation failed: installing component EFI: Failed to invoke efibootmgr\n\
                 error: Installing to disk: Installing bootloader: Failed to run command: Command {\n    \
                 program: \"bootupctl\",\n    args: [\n        \"bootupctl\",\n        \"backend\",\n        \"install\",\n        \
                 \"--device\",\n        \"/dev/sdb\",\n    ],\n    create_pidfd: false,\n}",
                ": Installing to disk: Installing bootloader: Failed to run command: bootupctl backend install --device \
                 /dev/sdb: boot data installation failed: installing component EFI: Failed to invoke efibootmgr; before that \
                 it printed:\n  Installing bootloader via bootupd\n  Could not prepare Boot variable: Invalid argument",
            ),
            (
                "an older bootc, whose programs say why",
                "losetup: /output/disk.img: failed to set up loop device: No such file or directory\n\
                 ERROR Installing to disk: Task losetup failed: ExitStatus(unix_wait_status(256))",
                ": Installing to disk: Task losetup failed: ExitStatus(unix_wait_status(256)); before that it printed:\n  \
                 losetup: /output/disk.img: failed to set up loop device: No such file or directory",
            ),
            (
                "skopeo's words within the error",
                "error: Installing to disk: Creating ostree deployment: Performing deployment: Importing: Parsing layer blob \
                 sha256:5d: Failed to invoke skopeo proxy method FinishPipe: remote error: received unexpected HTTP status: \
                 502 Bad Gateway",
                ": Installing to disk: Creating ostree deployment: Performing deployment: Importing: Parsing layer blob \
                 sha256:5d: Failed to invoke skopeo proxy method FinishPipe: remote error: received unexpected HTTP status: \
                 502 Bad Gateway",
            ),
            (
                "what a program said, behind the error",
                "Creating rootfs\nerror: Installing to disk: Creating rootfs: Subprocess failed: \
                 ExitStatus(unix_wait_status(256))\nmkfs.ext4: No space left on device while writing out\n",
                ": Installing to disk: Creating rootfs: Subprocess failed: ExitStatus(unix_wait_status(256)): mkfs.ext4: No \
                 space left on device while writing out",
            ),
            (
                "grub2-editenv is missing (bootc 1.16.9, bootupd 0.3.2)",
                "Added 10_blscfg.cfg\nInstalled: grub.cfg\n\
                 error: boot data installation failed: Installing static GRUB configs: Create grubenv: Create file \
                 boot/grub2/grubenv: Failed to find \"/usr/bin/grub2-editenv\"\n\
                 error: Installing to disk: Installing bootloader: Failed to run command: Command {\n    \
                 program: \"bootupctl\",\n    args: [\n        \"bootupctl\",\n        \"backend\",\n        \"install\",\n        \
                 \"--filesystem\",\n        \"/sysroot\",\n        \"/\",\n    ],\n    env: CommandEnv {\n        clear: true,\n        \
                 vars: {\n            \"PATH\": Some(\n                \"/bin:/usr/bin\",\n            ),\n        },\n    },\n    \
                 create_pidfd: false,\n}",
                ": Installing to disk: Installing bootloader: Failed to run command: bootupctl backend install --filesystem \
                 /sysroot /: boot data installation failed: Installing static GRUB configs: Create grubenv: Create file \
                 boot/grub2/grubenv: Failed to find \"/usr/bin/grub2-editenv\"; before that it printed:\n  \
                 Added 10_blscfg.cfg\n  Installed: grub.cfg",
            ),
            (
                "podman's log and its error behind bootc's own (bootc 1.16.9)",
                "Initializing ostree layout\n\
                 error: Installing to disk: Creating imgstorage: Initializing images: Subprocess failed: \
                 ExitStatus(unix_wait_status(32000))\n\
                 time=\"2026-11-26T12:32:46Z\" level=warning msg=\"Using cgroups-v1 which is deprecated\"\n\
                 Error: default OCI runtime \"runc\" not found: invalid argument",
                ": Installing to disk: Creating imgstorage: Initializing images: Subprocess failed: \
                 ExitStatus(unix_wait_status(32000)): default OCI runtime \"runc\" not found: invalid argument",
            ),
            (
                "the source fails while bootc fetches (bootc 1.16.9)",
                "mke2fs 1.47.4 (6-Mar-2025)\nCreating ESP filesystem\n> mkfs.fat /dev/ubda2 -n EFI-SYSTEM\n\
                 Initializing ostree layout\n\
                 error: Installing to disk: Creating ostree deployment: Pulling: Importing: failed to invoke method GetBlob: \
                 fetching blob: received unexpected HTTP status: 502 Bad Gateway",
                ": Installing to disk: Creating ostree deployment: Pulling: Importing: failed to invoke method GetBlob: fetching \
                 blob: received unexpected HTTP status: 502 Bad Gateway; before that it printed:\n  Creating ESP filesystem\n  \
                 > mkfs.fat /dev/ubda2 -n EFI-SYSTEM\n  Initializing ostree layout",
            ),
            (
                "something behind a command over many lines",
                "error: Mounting: Command {\n    program: \"mount\",\n    args: [\n        \"mount\",\n        \"/dev/vda3\",\n    \
                 ],\n}: No such file or directory (os error 2)",
                ": Mounting: mount /dev/vda3: No such file or directory (os error 2)",
            ),
            (
                "skopeo's log",
                "time=\"2026-01-01T00:00:00Z\" level=fatal msg=\"initializing source: pinging container registry\"",
                ": initializing source: pinging container registry",
            ),
            (
                "a panic",
                "thread 'main' panicked at crates/lib/src/install.rs:12:5:\ncalled `Option::unwrap()` on a `None` value",
                ": thread 'main' panicked at crates/lib/src/install.rs:12:5: called `Option::unwrap()` on a `None` value",
            ),
            (
                "no error at all",
                "one\ntwo",
                "; its last lines were:\n  one\n  two",
            ),
            ("nothing", "", " and printed nothing"),
            (
                "a dump that is cut off",
                "error: Failed to run command: Command {\n    program: \"a\",\n    args: [\n        \"a\",",
                ": Failed to run command: a",
            ),
        ] {
            assert_eq!(reason_of(output), expected, "{what}");
        }
    }

    #[test]
    fn a_reason_is_never_long() {
        let long = "x".repeat(10 * SHORT_CHARS);
        let lines = vec![long.clone(); 100];
        assert!(reason(&lines).len() < 2 * LAST_LINES * SHORT_CHARS);
        let errors = [vec![long.clone(); 100], vec![format!("error: {long}")], lines].concat();
        assert!(reason(&errors).len() < 2 * LAST_LINES * SHORT_CHARS);
    }
}
