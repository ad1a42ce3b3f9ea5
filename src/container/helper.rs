//! The process that calls libcontainer: single-threaded, with a bundle directory and two output pipes and
//! nothing else.
//!
//! Once the container has started, it ends only after the container has ended. Until then SIGTERM ends it at
//! once. Whenever it ends, the container ends with it: the kernel kills the container's first process when
//! its parent dies, and with that one all others. And it ends with Landfall itself.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, execve, getppid};
use serde::{Deserialize, Serialize};

use super::broker;
use super::cgroup;
use super::executable;
use super::exit::{Ended, ExitStatus, NotStarted};
use super::filter::Broker;
use super::furnish::furnish;
use super::power::Power;
use super::process::Process;
use crate::sys::namespace::{enter_private_mounts, leave_initramfs};
use crate::sys::signal::restore_default;
use crate::sys::{keyring, seccomp};

/// The name of the one container in its bundle.
const CONTAINER: &str = "landfall";
/// Where the helper says how it went, in the bundle.
pub const OUTCOME_FILE: &str = "outcome.json";
/// The helper's own orders, in the bundle, beside the runtime's `config.json`.
pub const ORDERS_FILE: &str = "orders.json";
/// Where the container's first process says that it could not become the command, in the bundle.
const NOT_STARTED_FILE: &str = "not-started.json";

/// What the runtime's configuration has no word for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    /// What the command may do.
    pub power: Power,
    /// What leads into the container's control groups.
    pub control_groups: Vec<PathBuf>,
    /// The process that gives these orders.
    pub from: u32,
}

/// How it went.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The command ran and ended like this.
    Ended(Ended),
    /// The container was made, but the command could not be started in it.
    NotStarted(NotStarted),
    /// The container could not be made.
    Failed(String),
}

/// Runs the container of `bundle` and leaves the outcome there. The process must be single-threaded.
pub fn main(bundle: &Path) -> Result<()> {
    let outcome = run(bundle).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
    let text = serde_json::to_vec(&outcome)?;
    fs::write(bundle.join(OUTCOME_FILE), text).context("writing the outcome to the bundle")
}

fn run(bundle: &Path) -> Result<Outcome> {
    let orders = fs::read(bundle.join(ORDERS_FILE)).context("reading the orders")?;
    let orders: Orders = serde_json::from_slice(&orders)?;
    end_with(orders.from)?;
    cgroup::join(&orders.control_groups).context("joining the container's control groups")?;
    executable::seal(bundle)?;
    // Landfall's first thread blocks signals, and its children inherit that.
    SigSet::all().thread_unblock().context("sigprocmask")?;
    keyring::join_new_session()?;
    enter_private_mounts()?;
    leave_initramfs()?;
    hide_cgroups()?;
    let helper = Arc::new(Process::own()?);
    let target = orders.power.target();
    let target = target.filter(|_| seccomp::answers("user_notif"));
    let broker = target.map(|target| broker::Broker::start(bundle, &helper, &target.disk));
    let broker = broker.transpose()?;
    let not_started = bundle.join(NOT_STARTED_FILE);
    let power = orders.power.clone();
    let executor = ImageExecutor {
        orders,
        helper,
        is_filtered: seccomp::answers("errno"),
        broker: broker.as_ref().map(broker::Broker::line),
        not_started: Arc::new(File::create(&not_started).context("making a file in the bundle")?),
    };
    let mut container = cgroup::start_expendable(|| build(bundle, executor))?;
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGCHLD].into_iter().collect();
    signals.thread_block().context("sigprocmask")?;
    let first = container.pid().context("the container has no process")?;
    let first = Pid::from_raw(first.as_raw());
    // By a thread of its own: there is nothing to be cloned any more.
    furnish(first, &power)?;
    container.start().context("starting the container")?;
    let status = wait(first, &signals)?;
    container.delete(true).context("removing the container")?;
    let refused = broker.map(|broker| broker.end(bundle)).transpose()?;
    let not_started = fs::read(not_started).context("reading why the command did not start")?;
    if not_started.is_empty() {
        let refused = refused.unwrap_or_default();
        return Ok(Outcome::Ended(Ended { status, refused }));
    }
    let not_started =
        serde_json::from_slice(&not_started).context("reading why the command did not start")?;
    Ok(Outcome::NotStarted(not_started))
}

/// Makes sure that this process ends when `parent` does: a killed parent can't tell it to.
fn end_with(parent: u32) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
    // If it died before that, no signal came.
    let found = getppid().as_raw();
    ensure!(
        u32::try_from(found) == Ok(parent),
        "Landfall, process {parent}, has ended"
    );
    Ok(())
}

/// libcontainer wants to find a cgroup file system. An empty directory makes it go without, so nothing of the
/// machine's own cgroups is touched or left behind.
fn hide_cgroups() -> Result<()> {
    let cgroups = Path::new("/sys/fs/cgroup");
    if cgroups.is_dir() {
        // Hierarchies that are merely covered would still be found in the list of mounts.
        while umount2(cgroups, MntFlags::MNT_DETACH).is_ok() {}
        mount(
            Some("tmpfs"),
            cgroups,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .context("mounting over the cgroups")?;
    }
    Ok(())
}

fn build(bundle: &Path, executor: ImageExecutor) -> Result<Container> {
    ContainerBuilder::new(CONTAINER.into(), SyscallType::default())
        .with_root_path(bundle.join("state"))?
        .with_executor(executor)
        .validate_id()?
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(false)
        .build()
        .map_err(|error| anyhow!("{}", causes(&error)))
        .context("making the container")
}

/// An error with its causes; libcontainer's own texts leave them out.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Waits for the container's first process; on SIGTERM ends it first. With that process all others in its PID
/// namespace have ended when this returns.
fn wait(init: Pid, signals: &SigSet) -> Result<ExitStatus> {
    loop {
        match waitpid(init, Some(WaitPidFlag::WNOHANG)).context("waitpid")? {
            WaitStatus::Exited(_, status) => return Ok(ExitStatus::Exited(status)),
            WaitStatus::Signaled(_, signal, _) => return Ok(ExitStatus::Signaled(signal as i32)),
            _ => {}
        }
        if signals.wait().context("sigwait")? == Signal::SIGTERM {
            kill(init, Signal::SIGKILL).context("kill")?;
        }
    }
}

/// What runs in the container right before the command.
#[derive(Clone)]
struct ImageExecutor {
    orders: Orders,
    helper: Arc<Process>,
    /// Whether this kernel filters system calls.
    is_filtered: bool,
    /// Leads to the broker, if there is one.
    broker: Option<Arc<OwnedFd>>,
    /// Takes the reason why the command could not be started. The kernel closes it when the command starts.
    not_started: Arc<File>,
}

impl Executor for ImageExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let filtered = prepare().and_then(|()| self.filter());
        let not_started = match filtered {
            Ok(()) => execute(spec),
            Err(error) => NotStarted::not_run(format!("{error:#}")),
        };
        // libcontainer tells nobody what went wrong from here on.
        if let Ok(text) = serde_json::to_vec(&not_started) {
            let _ = self.not_started.as_ref().write_all(&text);
        }
        std::process::exit(not_started.exit_status.into())
    }

    /// The first of ours that is called in the container. Its environment is given to the command alone:
    /// libcontainer would set one variable after the other, each time looking through all of them.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        let along = self.helper.take_along();
        along.map_err(|error| ExecutorSetEnvsError::Other(format!("{error:#}")))
    }

    /// Whether the command can be started is seen when it is, and then the kernel says why not.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }
}

fn prepare() -> Result<()> {
    // Landfall ignores it, and what is ignored stays so in a program that is executed.
    restore_default(Signal::SIGPIPE)?;
    SigSet::all().thread_unblock().context("sigprocmask")
}

impl ImageExecutor {
    /// From here on this process can do what the command can do, and no more.
    fn filter(&self) -> Result<()> {
        let power = &self.orders.power;
        match &self.broker {
            _ if !self.is_filtered => Ok(()),
            Some(line) => broker::hand_over(line, &power.filter(Broker::Present)),
            None => seccomp::install(&power.filter(Broker::Missing)),
        }
    }
}

/// Becomes the command; gives the reason why that can't be done.
fn execute(spec: &Spec) -> NotStarted {
    let (mut arguments, mut variables) = (&[][..], &[][..]);
    if let Some(process) = spec.process() {
        arguments = process.args().as_deref().unwrap_or_default();
        variables = process.env().as_deref().unwrap_or_default();
    }
    let program = arguments.first().map_or("", String::as_str);
    let path = variables
        .iter()
        .find_map(|variable| variable.strip_prefix("PATH="));
    let words = |words: &[String]| words.iter().map(|word| CString::new(word.as_str())).collect();
    let words: (Result<Vec<_>, _>, Result<Vec<_>, _>) = (words(arguments), words(variables));
    let errno = match words {
        (Ok(arguments), Ok(variables)) => search(program, path.unwrap_or_default(), |file| {
            execve(file, &arguments, &variables)
        }),
        _ => Errno::EINVAL,
    };
    NotStarted::because(program, errno)
}

/// Executes the program where the command's own `PATH` leads; says why none was, as execvp(3) does.
fn search(program: &str, path: &str, execute: impl Fn(&CStr) -> nix::Result<Infallible>) -> Errno {
    let path = if program.contains('/') { "" } else { path };
    let mut refused = Errno::ENOENT;
    for directory in path.split(':') {
        let file = Path::new(directory).join(program);
        let Ok(file) = CString::new(file.into_os_string().into_encoded_bytes()) else {
            return Errno::EINVAL;
        };
        let Err(errno) = execute(&file);
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => refused = errno,
            errno => return errno,
        }
    }
    refused
}
