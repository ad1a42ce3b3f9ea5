//! What the first process does when the installation is over. It must never end: that would be a kernel
//! panic.

use std::io::{self, BufRead};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Error;
use nix::sys::reboot::{RebootMode, reboot};

use super::cmdline::{After, AfterFailure};
use super::network;
use crate::console::output::say;
use crate::console::text::printable_message;

/// Where a ramdisk may have a shell, and how it is called.
const SHELLS: [(&str, &[&str]); 4] = [
    ("/bin/bash", &[]),
    ("/bin/sh", &[]),
    ("/usr/bin/sh", &[]),
    ("/bin/busybox", &["sh"]),
];

/// Ends a successful installation. That it is one is the last word, too.
pub(super) fn after_success(after: After) -> ! {
    match after {
        After::Reboot => power(RebootMode::RB_AUTOBOOT, "installed; rebooting"),
        After::PowerOff => power(RebootMode::RB_POWER_OFF, "installed; powering off"),
        After::Halt => power(RebootMode::RB_HALT_SYSTEM, "installed; halting"),
        After::Shell if shell() => {}
        After::Shell => power(
            RebootMode::RB_HALT_SYSTEM,
            "installed; there is no shell in this ramdisk: halting",
        ),
    }
    stay()
}

/// Ends a failed one. The reason is the last word.
pub(super) fn after_failure(after: AfterFailure, reason: &Error) -> ! {
    let failed = format!("failed: {}", printable_message(&format!("{reason:#}")));
    match after {
        AfterFailure::Stay => say(&format!("\nlandfall: {failed}")),
        AfterFailure::PowerOff => power(RebootMode::RB_POWER_OFF, &format!("{failed}; powering off")),
        AfterFailure::Shell => {
            say(&format!("\nlandfall: {failed}"));
            if !shell() {
                say("landfall: there is no shell in this ramdisk");
            }
        }
    }
    stay()
}

/// Stays, and does what is typed.
fn stay() -> ! {
    let help = "landfall: type `reboot`, `poweroff` or `shell` and press Enter (Ctrl-Alt-Del also reboots)";
    say(help);
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        match line.trim() {
            "" => {}
            "reboot" => power(RebootMode::RB_AUTOBOOT, "rebooting"),
            "poweroff" => power(RebootMode::RB_POWER_OFF, "powering off"),
            "shell" if !shell() => say("landfall: there is no shell in this ramdisk"),
            _ => say(help),
        }
    }
    // No console to read from.
    loop {
        sleep(Duration::from_secs(3600));
    }
}

/// Returns only if the kernel refuses.
fn power(mode: RebootMode, what: &str) {
    say(&format!("landfall: {what}"));
    nix::unistd::sync();
    // A driver at work while the kernel resets its device can hang a processor forever (seen with
    // virtio_net).
    network::take_down();
    let Err(errno) = reboot(mode);
    say(&format!("landfall: reboot({mode:?}): {errno}"));
}

/// Runs a shell until it is left. Says whether there is one.
fn shell() -> bool {
    let Some((path, arguments)) = SHELLS.iter().find(|(path, _)| Path::new(path).exists()) else {
        return false;
    };
    let ran = Command::new(path).args(*arguments).status();
    ran.inspect_err(|error| say(&format!("landfall: execve({path}): {error}")))
        .is_ok()
}
