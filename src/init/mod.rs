//! Landfall as the first process, the `/init` of a ramdisk with nothing else in it but kernel modules.
//!
//! The story: mounts, a root of its own, modules, network, installation, end. The installation runs in a process of its own:
//! whatever happens to it (a bug, the kernel's out-of-memory killer), the first process lives on and keeps
//! the reason on the screen. It never ends and never reboots after a failure.

mod cmdline;
mod ending;
mod mounts;
mod network;
mod own_root;
mod settings;

use std::ffi::OsStr;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::Command;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::statfs::statfs;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

use crate::console::output::say;
use crate::console::progress::{Progress, Style, Wait};
use crate::image::source::name::ImageName;
use crate::image::source::url;
use crate::machine::disk::chosen::{Disk, choosable};
use crate::machine::first_process::{Line, Order};
use crate::machine::kernel::command_line;
use crate::machine::kernel::modules::{self, Loaded, Loader};
use crate::machine::labelled::Place;
use crate::machine::ramdisk;
use crate::request::Install;
use crate::sys::signal::reboot_in_order_on_ctrl_alt_del;
use cmdline::ip::Network;
use cmdline::{Ending, Installation};
use network::Addresses;

/// How long a disk or a stick may take to appear after its driver was loaded.
const DISK_LIMIT: Duration = Duration::from_secs(60);
/// How long until disks are looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// After this many looks without a new disk, all are assumed to be there.
const QUIET_LOOKS: u32 = 12;

/// Takes over if the kernel called this program: as the first process of a ramdisk, or to load a module.
/// Returns otherwise. To be called before anything else.
pub fn take_over_if_called_by_the_kernel() {
    if is_pid1_in_ramdisk() {
        run();
    }
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(names) = modules::asked_by_kernel(&arguments) {
        // No one reads a message here: the kernel checks the result itself.
        std::process::exit(i32::from(modules::load(&names).is_err()));
    }
}

/// Whether this is the first process, and the root file system one in memory.
fn is_pid1_in_ramdisk() -> bool {
    let in_memory = |magic: i64| magic == libc::TMPFS_MAGIC || magic == RAMFS_MAGIC;
    getpid() == Pid::from_raw(1) && statfs("/").is_ok_and(|root| in_memory(root.filesystem_type().0))
}

/// `RAMFS_MAGIC` of include/uapi/linux/magic.h.
const RAMFS_MAGIC: i64 = 0x8584_58f6;

/// Runs as the first process.
fn run() -> ! {
    let ending = surviving(read_ending);
    let failure = ending.as_ref().map(|ending| ending.failure).unwrap_or_default();
    let outcome =
        ending.and_then(|ending| surviving(install_as_the_command_line_says).map(|()| ending.success));
    match outcome {
        Ok(after) => ending::after_success(after),
        Err(error) => ending::after_failure(failure, &error),
    }
}

/// What `step` gives; that it panicked is an error like any other.
fn surviving<T>(step: fn() -> Result<T>) -> Result<T> {
    catch_unwind(step).unwrap_or_else(|_| Err(anyhow!("Landfall has a bug: see above")))
}

/// Mounts what every step needs, the kernel command line among it, and reads how it is to end.
fn read_ending() -> Result<Ending> {
    mounts::mount_all().context("mounting the kernel's file systems")?;
    cmdline::ending(&command_line::read()?)
}

/// The story.
fn install_as_the_command_line_says() -> Result<()> {
    own_root::move_in().context("moving out of the kernel's own root")?;
    settings::apply()?;
    let progress = Progress::on_stderr(Style::Plain);
    progress.note(format!(
        "Landfall {} is running as the first process",
        env!("CARGO_PKG_VERSION")
    ));
    reboot_in_order_on_ctrl_alt_del()?;
    let words = command_line::read()?;
    let installation = cmdline::installation(&words)?;
    let mut network = Network::parse(&words)?;
    if !installation.needs_network() && network.setups.is_empty() {
        network = Network::off();
    }
    let mut devices = Devices::with_modules(&progress);
    mounts::mount_late().context("mounting efivarfs and cgroups")?;
    let addresses =
        network::bring_up(&network, || devices.look(), &progress).context("bringing the network up")?;
    if let Some(request) = &installation.request {
        devices.wait_for_disk(request);
        devices.wait_for_stick(&request.image.name);
    }
    drop(devices);
    run_installer(&installation, addresses)
}

/// The devices of this machine and the modules that serve them.
struct Devices<'a> {
    /// None where the kernel has no modules, and so perhaps all drivers built in.
    loader: Option<Loader>,
    progress: &'a Progress,
}

impl<'a> Devices<'a> {
    fn with_modules(progress: &'a Progress) -> Self {
        let _loading = progress.waiting(Wait::new("loading kernel modules"));
        let loader = Loader::open()
            .inspect_err(|error| progress.warn(format!("{error:#}")))
            .ok();
        let mut devices = Self { loader, progress };
        if let Some(loader) = &mut devices.loader {
            if let Err(error) = modules::answer_the_kernel() {
                progress.warn(format!("the kernel cannot load modules on demand: {error:#}"));
            }
            let always = loader.load_always();
            devices.tell(&always);
            devices.look();
        }
        devices
    }

    /// Loads the modules that devices ask for which have appeared since the last look.
    fn look(&mut self) {
        if let Some(loader) = &mut self.loader {
            let loaded = loader.coldplug();
            self.tell(&loaded);
        }
    }

    fn tell(&self, loaded: &Loaded) {
        if !loaded.names.is_empty() {
            self.progress
                .note(format!("kernel modules loaded: {}", loaded.names.join(" ")));
        }
        for problem in &loaded.problems {
            self.progress.warn(problem.as_str());
        }
    }

    fn wait_for_disk(&mut self, request: &Install) {
        let mut arrivals = Arrivals::default();
        self.wait_until("a disk", || arrivals.are_complete(request));
    }

    fn wait_for_stick(&mut self, image: &ImageName) {
        if let ImageName::Local { path, .. } = image
            && let Some(place) = Place::parse(path)
        {
            self.wait_until(&format!("the USB stick {:?}", place.label), || place.is_there());
        }
    }

    /// Waits until something has appeared; if it doesn't, the installer has the better error.
    fn wait_until(&mut self, what: &str, mut is_there: impl FnMut() -> bool) {
        let wait = Wait::new(format!("waiting for {what}")).at_most(DISK_LIMIT);
        let _waiting = self.progress.waiting(wait);
        let since = Instant::now();
        while !is_there() && since.elapsed() < DISK_LIMIT {
            sleep(LOOK_AGAIN);
            self.look();
        }
    }
}

/// The disks that have appeared.
#[derive(Default)]
struct Arrivals {
    seen: Vec<String>,
    unchanged: u32,
}

impl Arrivals {
    fn are_complete(&mut self, request: &Install) -> bool {
        match request.disk() {
            Some(path) => Disk::is_there(path),
            None => self.settle(choosable(&request.hints)),
        }
    }

    /// Disks come one by one: the smallest of those that are there isn't the smallest of all.
    fn settle(&mut self, now: Vec<String>) -> bool {
        self.unchanged = if now == self.seen { self.unchanged + 1 } else { 0 };
        self.seen = now;
        !self.seen.is_empty() && self.unchanged >= QUIET_LOOKS
    }
}

/// An argument as the console may show it: of an address, the rest may be a secret.
fn shown(argument: &OsStr) -> String {
    let text = argument.to_string_lossy();
    let start = match text.split_once('=') {
        Some((option, _)) if option.starts_with("--") => option.len() + 1,
        _ => 0,
    };
    match url::parse(&text[start..]) {
        Some(url) => format!("{}{}", &text[..start], url::shown(&url)),
        None => text.into_owned(),
    }
}

/// Runs this program again, as the installer, and takes zombies away until it ends.
fn run_installer(installation: &Installation, addresses: Addresses) -> Result<()> {
    let shown: Vec<_> = installation
        .arguments
        .iter()
        .map(|argument| shown(argument))
        .collect();
    say(&format!("landfall {}", shown.join(" ")));
    let (line, theirs) = Line::new()?;
    let child = Command::new("/proc/self/exe")
        .args(&installation.arguments)
        // Nobody is asked anything, but this process.
        .stdin(theirs)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .spawn()
        .context("execve(/proc/self/exe)")?;
    let configuration = installation.configuration.clone();
    thread::spawn(move || attend(&line, &addresses, &configuration));
    let pid = Pid::from_raw(i32::try_from(child.id()).context("the kernel gave an impossible process id")?);
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(ended, 0)) if ended == pid => return Ok(()),
            Ok(WaitStatus::Exited(ended, status)) if ended == pid => {
                bail!("the installer ended with status {status}; its reason is above");
            }
            Ok(WaitStatus::Signaled(ended, signal, _)) if ended == pid => {
                let hint = if signal == Signal::SIGKILL {
                    ": is there too little memory?"
                } else {
                    ""
                };
                bail!("the installer was killed by {signal}{hint}");
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("waitpid(-1)"),
        }
    }
}

/// Does what the installer asks for, until it has ended; then the network is as it was before.
fn attend(line: &Line, addresses: &Addresses, configuration: &Path) {
    line.serve(|order| match order {
        Order::ForgetConfiguration => ramdisk::remove(configuration),
        Order::NetworkDown => {
            say("landfall: network interfaces are down while the image's programs run");
            addresses.take_down()
        }
        Order::NetworkUp => {
            say("landfall: network interfaces are up again");
            addresses.bring_up()
        }
    });
    if let Err(error) = addresses.bring_up() {
        say(&format!("landfall: {error:#}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_shows_no_secrets_of_addresses() {
        for (argument, expected) in [
            (
                "--config-drive=http://u:p@h:8/d.iso?token=s",
                "--config-drive=http://h:8/d.iso",
            ),
            ("https://h/d?s", "https://h/d"),
            ("--karg=root=x", "--karg=root=x"),
            ("h.lab/os:1", "h.lab/os:1"),
        ] {
            assert_eq!(shown(OsStr::new(argument)), expected);
        }
    }

    #[test]
    fn disks_are_complete_when_no_more_come() {
        let names = |count: usize| {
            ["/dev/sda", "/dev/sdb"][..count]
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        let mut arrivals = Arrivals::default();
        let looks = QUIET_LOOKS as usize;
        let counts = [vec![0; looks + 2], vec![1; looks], vec![2; looks + 1]].concat();
        let verdicts: Vec<bool> = counts
            .iter()
            .map(|count| arrivals.settle(names(*count)))
            .collect();
        assert_eq!(
            verdicts.iter().position(|complete| *complete),
            Some(counts.len() - 1)
        );
    }
}
