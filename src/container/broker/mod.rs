//! The broker: a process outside the container that mounts for the installer, which may not mount itself.
//!
//! A filter of system calls sees numbers, not the paths and types that they point to. So the installer's calls
//! that mount wait here, by seccomp's user notification. For each a child is started, which copies the
//! arguments, goes where the caller is, with no more power than it, looks up what is meant, decides, and does
//! the call itself: nothing that the caller changes meanwhile changes what was decided about. [`rules`] says
//! what may be done. Calls that no honest image makes come here to be refused and told.

mod caller;
mod calls;
mod container;
mod found;
mod locked;
mod rules;

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, recvmsg,
    sendmsg, shutdown, socketpair,
};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, read, write};

use super::filter;
use super::process::Process;
use crate::console::text::{printable, shortened};
use crate::sys::fork::fork;
use crate::sys::notify::{Call, Listener};
use crate::sys::seccomp::install_with_listener;
use caller::{Caller, open_path};
use calls::{Asked, Failure, Reply};
use container::{Container, Interfaces, Machine};
use found::View;
use locked::lock_covers;

/// How many calls are worked on at once. The others wait.
const MOST_CHILDREN: usize = 16;
/// How many refusals are told.
const MOST_REFUSALS: usize = 32;
/// A refusal is read in one piece, as pipes keep those that are no longer than 4096 bytes together.
const REFUSAL_BYTES: usize = 512;
/// Where the broker leaves what it refused, in the bundle.
const REFUSED_FILE: &str = "refused.json";

/// The broker, as the process sees it that makes the container.
pub struct Broker {
    process: Pid,
    line: Arc<OwnedFd>,
}

impl Broker {
    /// Starts it, before the container is made, for an installation onto `disk`. It ends with `parent`, the calling
    /// process, which must be single-threaded.
    pub fn start(bundle: &Path, parent: &Process, disk: &Path) -> Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .context("socketpair")?;
        let process = fork(|| {
            let refused = work(&ours, parent, disk).map_err(|error| format!("{error:#}"));
            let written = serde_json::to_vec(&refused).map(|text| fs::write(bundle.join(REFUSED_FILE), text));
            i32::from(!matches!(written, Ok(Ok(()))))
        });
        let process = process.context("starting the process that mounts for the image")?;
        let line = Arc::new(theirs);
        Ok(Self { process, line })
    }

    /// What the container's first process needs for [`hand_over`].
    pub fn line(&self) -> Arc<OwnedFd> {
        self.line.clone()
    }

    /// Ends it after the container; gives what it refused, in words that go after "the image tried to".
    pub fn end(self, bundle: &Path) -> Result<Vec<String>> {
        shutdown(self.line.as_raw_fd(), Shutdown::Both).context("shutdown")?;
        let status = waitpid(self.process, None).context("waitpid")?;
        ensure!(
            status == WaitStatus::Exited(self.process, 0),
            "the process that mounts for the image died: {status:?}"
        );
        let text = fs::read(bundle.join(REFUSED_FILE)).context("reading what was refused")?;
        let refused: Result<Vec<String>, String> =
            serde_json::from_slice(&text).context("reading what was refused")?;
        refused.map_err(|reason| anyhow!("the process that mounts for the image failed: {reason}"))
    }
}

/// Puts the calling process, the container's first one, under `program`, and gives the broker what it needs.
/// All of the container's own mounts must have been made.
pub fn hand_over(line: &OwnedFd, program: &[libc::sock_filter]) -> Result<()> {
    let locked = lock_covers().context("locking what covers parts of /proc, /sys and /dev")?;
    let directory = |path: &str| open_path(AT_FDCWD, path, OFlag::O_DIRECTORY);
    let mounts = open("/proc/self/ns/mnt", OFlag::O_CLOEXEC, Mode::empty());
    let files = [
        directory("/proc").context("open(/proc)")?,
        directory("/sys").context("open(/sys)")?,
        directory("/dev").context("open(/dev)")?,
        mounts.context("open(/proc/self/ns/mnt)")?,
        install_with_listener(program)?,
    ];
    let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let locked = [u8::from(locked)];
    let message = [IoSlice::new(&locked)];
    let files = [ControlMessage::ScmRights(&numbers)];
    sendmsg::<()>(line.as_raw_fd(), &message, &files, MsgFlags::MSG_NOSIGNAL, None)
        .context("sending the filter's listener to the broker")?;
    Ok(())
}

/// The broker's life; gives what it refused.
fn work(line: &OwnedFd, parent: &Process, disk: &Path) -> Result<Vec<String>> {
    parent.take_along()?;
    // Nobody looks into its memory, or at its files.
    set_dumpable(false).context("prctl(PR_SET_DUMPABLE)")?;
    SigSet::all().thread_unblock().context("sigprocmask")?;
    be_silent()?;
    let machine = Machine::look(disk)?;
    let Some((interfaces, listener)) = receive(line)? else {
        return Ok(Vec::new());
    };
    let container = Container::new(interfaces, machine);
    let devices = container.devices().context("fstat(/dev)")?;
    let (refusals, tell) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).context("pipe2")?;
    let desk = Desk {
        listener,
        container,
        devices,
        tell,
    };
    desk.work(line, &refusals)
}

/// Its standard output would keep the container's open.
fn be_silent() -> Result<()> {
    let null =
        open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).context("open(/dev/null)")?;
    dup2_stdin(&null).context("dup2")?;
    dup2_stdout(&null).context("dup2")?;
    dup2_stderr(&null).context("dup2")
}

/// What [`hand_over`] sends; none if there is no container any more.
fn receive(line: &OwnedFd) -> Result<Option<(Interfaces, Listener)>> {
    let mut locked = [0];
    let mut message = [IoSliceMut::new(&mut locked)];
    let mut room = nix::cmsg_space!([RawFd; 5]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received =
        recvmsg::<()>(line.as_raw_fd(), &mut message, Some(&mut room), flags).context("recvmsg")?;
    let mut files = Vec::new();
    for part in received.cmsgs().context("recvmsg")? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            files.extend(numbers.into_iter().map(own));
        }
    }
    let Ok([proc, sys, dev, mounts, listener]) = <[OwnedFd; 5]>::try_from(files) else {
        return Ok(None);
    };
    let listener = Listener::new(listener).context("seccomp(SECCOMP_GET_NOTIF_SIZES)")?;
    let interfaces = Interfaces {
        proc,
        sys,
        dev,
        mounts,
        locked: locked == [1],
    };
    Ok(Some((interfaces, listener)))
}

/// Where calls are worked on.
struct Desk {
    listener: Listener,
    container: Container,
    /// The number of the kernel's devtmpfs.
    devices: u64,
    /// Takes what was refused.
    tell: OwnedFd,
}

impl Desk {
    /// Works until the container has ended, or the other end of `line` has.
    fn work(&self, line: &OwnedFd, refusals: &OwnedFd) -> Result<Vec<String>> {
        let (mut children, mut told) = (Vec::new(), Vec::new());
        loop {
            reap(&mut children, MOST_CHILDREN - 1);
            let seen = wait([self.listener.as_fd(), line.as_fd(), refusals.as_fd()])?;
            note(refusals, &mut told);
            let [listener, line, _] = seen;
            let over = PollFlags::POLLHUP | PollFlags::POLLERR;
            if listener.contains(PollFlags::POLLIN) {
                children.extend(self.take_call());
            } else if listener.intersects(over) || !line.is_empty() {
                break;
            }
        }
        for child in &children {
            let _ = kill(*child, Signal::SIGKILL);
        }
        reap(&mut children, 0);
        note(refusals, &mut told);
        Ok(told)
    }

    /// Starts a child for the next call, if its caller still waits.
    fn take_call(&self) -> Option<Pid> {
        let call = self.listener.receive().ok()?;
        match fork(|| self.serve(&call)) {
            Ok(child) => Some(child),
            Err(errno) => {
                let _ = self.listener.answer(&call, Err(errno));
                None
            }
        }
    }

    /// What a child does. Where the caller has gone meanwhile, nobody misses an answer.
    fn serve(&self, call: &Call) -> i32 {
        // Of its own: the parent may have ended already, but then the container is ending, too.
        let _ = set_pdeathsig(Signal::SIGKILL);
        let result = match self.answer(call) {
            Ok(Reply::Done) => Ok(0),
            Ok(Reply::Unseen) => {
                let _ = self.listener.let_pass(call);
                return 0;
            }
            Ok(Reply::File { file, close_on_exec }) => {
                match self.listener.answer_with(call, file.as_fd(), close_on_exec) {
                    Ok(()) => return 0,
                    Err(errno) => Err(errno),
                }
            }
            Err(Failure::Errno(errno)) => Err(errno),
            Err(Failure::Refused(what)) => {
                self.tell(&what);
                Err(Errno::EPERM)
            }
        };
        let _ = self.listener.answer(call, result);
        0
    }

    fn answer(&self, call: &Call) -> Result<Reply, Failure> {
        if let Some(name) = filter::told(call.number) {
            return Err(Failure::Refused(format!("call {name}")));
        }
        let view = View::new(self.devices)?;
        let caller = Caller::look_at(call.thread)?;
        let still_waits = || self.listener.still_waits(call);
        if !still_waits() {
            return Err(Errno::ESRCH.into());
        }
        let asked = Asked {
            call,
            caller: &caller,
            container: &self.container,
            view: &view,
            still_waits: &still_waits,
        };
        asked.answer()
    }

    /// Nobody waits for room: what does not fit into the pipe is not told.
    fn tell(&self, what: &str) {
        let mut what = printable(&shortened(what));
        while what.len() > REFUSAL_BYTES - 1 {
            what.pop();
        }
        let _ = write(&self.tell, format!("{what}\n").as_bytes());
    }
}

fn own(number: RawFd) -> OwnedFd {
    crate::sys::notify::received(number)
}

/// Waits until something can be read of these, or has ended.
fn wait<const COUNT: usize>(files: [BorrowedFd<'_>; COUNT]) -> Result<[PollFlags; COUNT]> {
    let mut files = files.map(|file| PollFd::new(file, PollFlags::POLLIN));
    match poll(&mut files, PollTimeout::NONE) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok([PollFlags::empty(); COUNT]),
        Err(errno) => return Err(errno).context("poll"),
    }
    Ok(files.map(|file| file.revents().unwrap_or(PollFlags::empty())))
}

/// Waits for children until no more than `most` are left.
fn reap(children: &mut Vec<Pid>, most: usize) {
    loop {
        let flags = if children.len() > most {
            None
        } else {
            Some(WaitPidFlag::WNOHANG)
        };
        match waitpid(None, flags) {
            Ok(status) => match status.pid() {
                Some(ended) => children.retain(|child| *child != ended),
                None => return,
            },
            Err(Errno::EINTR) => {}
            Err(_) => return children.clear(),
        }
    }
}

/// Adds what children have told.
fn note(refusals: &OwnedFd, told: &mut Vec<String>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = read(refusals, &mut buffer) {
        for what in String::from_utf8_lossy(&buffer[..count]).lines() {
            if told.len() < MOST_REFUSALS && !told.iter().any(|before| before == what) {
                told.push(what.to_owned());
            }
        }
    }
}
