//! What signals do: to the first process when somebody presses Ctrl-Alt-Del, and to programs that are
//! executed.

use anyhow::{Context, Result};
use nix::sys::reboot::set_cad_enabled;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

const MESSAGE: &[u8] = b"\nCtrl-Alt-Del: rebooting\n";

/// Lets Ctrl-Alt-Del write what is buffered to the disks before the machine reboots. For the first process
/// only: by itself the kernel reboots at once.
pub fn reboot_in_order_on_ctrl_alt_del() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(reboot), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler calls write, sync and reboot alone: system calls without state in this process.
    unsafe { sigaction(Signal::SIGINT, &action) }.context("sigaction(SIGINT)")?;
    set_cad_enabled(false).context("reboot(RB_DISABLE_CAD)")
}

/// Undoes what this process does about a signal: what is ignored stays so in a program that is executed.
pub fn restore_default(signal: Signal) -> Result<()> {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no code of this process is called for it.
    unsafe { sigaction(signal, &action) }
        .context("sigaction(SIG_DFL)")
        .map(drop)
}

extern "C" fn reboot(_: libc::c_int) {
    // SAFETY: the message is valid for its length; sync and reboot take no memory of ours.
    unsafe {
        libc::write(libc::STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len());
        libc::sync();
        libc::reboot(libc::RB_AUTOBOOT);
    }
}
