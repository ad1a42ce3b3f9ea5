//! The `landfall` command: parse, run, print one error, exit code.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use landfall::cli::{self, Cli, Command, ConfigDriveCommand};
use landfall::commands::disks::Inventory;
use landfall::commands::{config_drives, inspect, pull, run, unpack};
use landfall::install::Summary;
use landfall::progress::{Event, Progress, Wait};
use landfall::{
    DiskState, Hints, Meter, NotStarted, Report, Wanted, enter_private_mounts, heap, helper, init, install,
    output, request, text, verify,
};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Refused, failed or interrupted; no disk was changed.
const UNTOUCHED: u8 = 3;
/// Failed or interrupted after the disk was changed.
const CHANGED: u8 = 4;
/// The disk is installed and verified; something after that failed.
const INSTALLED: u8 = 5;

fn main() -> ExitCode {
    if let Err(error) = keep_to_itself() {
        return ExitCode::from(status::<()>(Err(error), UNTOUCHED));
    }
    init::take_over_if_called_by_the_kernel();
    let asked = cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    ExitCode::from(execute(asked))
}

/// Nobody but root may look into this process, and nothing of its memory is written to a file when it fails.
fn keep_to_itself() -> Result<()> {
    prctl::set_dumpable(false).context("prctl(PR_SET_DUMPABLE)")?;
    // A limit of 1 stops a program that is to handle core dumps, too; one of 0 only files (core(5)).
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE).context("getrlimit(RLIMIT_CORE)")?;
    setrlimit(Resource::RLIMIT_CORE, hard.min(1), hard.min(1)).context("setrlimit(RLIMIT_CORE)")
}

/// Does what is asked for; gives the exit status.
fn execute(asked: Cli) -> u8 {
    let progress = Progress::on_stderr(asked.progress);
    match asked.command {
        Command::ContainerHelper { bundle } => status(helper::main(&bundle), UNTOUCHED),
        Command::Install { install, report } => install_and_report(install, report.as_deref(), &progress),
        Command::Plan { install, json } => attended(plan(install, json, &progress), &progress),
        Command::Unpack { image, to } => attended(unpack::unpack(&image, &to, &progress), &progress),
        Command::Pull { image, to } => attended(pull::save(&image, &to, &progress), &progress),
        Command::Inspect { image, json } => attended(inspect(&image, json, &progress), &progress),
        Command::Disks { hints, json } => status(list_disks(&hints.into(), json, &progress), UNTOUCHED),
        Command::Verify { device, json } => attended(verify_disk(device, json, &progress), &progress),
        Command::ConfigDrive(command) => config_drive(command, &progress),
        Command::Run {
            image,
            require_isolation,
            command,
        } => run_command(&image, &command, require_isolation, &progress),
    }
}

/// The exit status is the command's, or says why there is none.
fn run_command(image: &Wanted, command: &[String], require_isolation: bool, progress: &Progress) -> u8 {
    match interruptible(run::run(image, command, require_isolation, progress), progress) {
        Ok(ended) => u8::try_from(ended.code()).unwrap_or(NotStarted::NOT_RUN),
        Err(error) => {
            let why = error.downcast_ref::<NotStarted>();
            let failed = why.map_or(NotStarted::NOT_RUN, |why| why.exit_status);
            status::<()>(Err(error), failed)
        }
    }
}

fn install_and_report(mut request: request::Install, path: Option<&Path>, progress: &Progress) -> u8 {
    if let Some(Err(error)) = path.map(Report::check_place) {
        return changed_or_not(Err(error), DiskState::Untouched);
    }
    let (meter, progress) = &Meter::start(progress);
    let mut report = Report::new();
    let mut result = interruptible(install::install(&mut request, progress, &mut report), progress);
    report.phases = meter.costs();
    report.error = result.as_ref().err().map(|error| format!("{error:#}"));
    let written = path.map_or(Ok(()), |path| report.write(path));
    match (&result, written) {
        (Ok(_), Err(error)) => result = Err(error),
        // The last word is why the installation failed.
        (Err(_), Err(error)) => progress.warn(format!("{error:#}")),
        (_, Ok(())) => {}
    }
    let result = result.map(|done| progress.tell(Event::Done(done)));
    changed_or_not(result, report.disk_state)
}

/// The exit status says whether the disk is still as it was.
fn changed_or_not(result: Result<()>, state: DiskState) -> u8 {
    let failed = match state {
        DiskState::Untouched => UNTOUCHED,
        DiskState::Changed | DiskState::Cleared | DiskState::Unverified => CHANGED,
        DiskState::Installed => INSTALLED,
    };
    let Err(error) = result else { return 0 };
    let (text, state) = (format!("{error:#}"), state.after_failure());
    if !text.contains('\n') {
        return status::<()>(Err(anyhow!("{text}; {state}")), failed);
    }
    // After what an image has printed, our own message needs a line of its own.
    status::<()>(Err(error), failed);
    status::<()>(Err(anyhow!("failed; {state}")), failed)
}

async fn plan(mut request: request::Install, json: bool, progress: &Progress) -> Result<()> {
    let (plan, _) = install::plan(&mut request, progress).await?;
    show(&Summary::from(&plan), json)
}

async fn inspect(wanted: &Wanted, json: bool, progress: &Progress) -> Result<()> {
    show(&inspect::inspect(wanted, progress).await?, json)
}

/// Prints what a command found out, for people or for programs.
fn show<T: Serialize + Display>(what: &T, json: bool) -> Result<()> {
    let text = if json {
        text::json(what)?
    } else {
        text::printable_table(&what.to_string())
    };
    output::print(|out| Ok(out.write_all(text.as_bytes())?))
}

fn config_drive(command: ConfigDriveCommand, progress: &Progress) -> u8 {
    match command {
        ConfigDriveCommand::Write {
            source,
            device,
            fetch,
            clear_stale_config_drives: clear_stale,
        } => {
            let (fetch, mut state) = (fetch.into(), DiskState::Untouched);
            let write = config_drives::write(&source, device, &fetch, clear_stale, progress, &mut state);
            changed_or_not(interruptible(write, progress), state)
        }
        ConfigDriveCommand::Show {
            place,
            contents,
            secrets,
        } => {
            let show = output::print(|out| config_drives::show(&place, contents, secrets, out));
            status(show, UNTOUCHED)
        }
        ConfigDriveCommand::Build {
            source,
            output,
            sector_bytes,
        } => {
            let built = config_drives::build(&source, &output, sector_bytes, progress);
            status(built, UNTOUCHED)
        }
    }
}

async fn verify_disk(device: PathBuf, json: bool, progress: &Progress) -> Result<()> {
    let checking = progress.waiting(Wait::new(format!("checking {}", device.display())));
    let verdict = verify::verify(device).await?;
    drop(checking);
    show(&verdict, json)?;
    verdict.refuse_failures()
}

fn list_disks(hints: &Hints, json: bool, progress: &Progress) -> Result<()> {
    let looking = progress.waiting(Wait::new("looking at the disks"));
    let inventory = Inventory::take(hints)?;
    drop(looking);
    show(&inventory, json)?;
    inventory.refuse_if_missed()
}

/// Runs a command that changes no disk; gives the exit status.
fn attended(work: impl Future<Output = Result<()>>, progress: &Progress) -> u8 {
    status(interruptible(work, progress), UNTOUCHED)
}

/// Runs `work` to its end, or until a signal asks to stop; then `work` is dropped, which cleans up.
fn interruptible<T>(work: impl Future<Output = Result<T>>, progress: &Progress) -> Result<T> {
    // Before any thread is there: mounts made from here on are seen by nobody else, and go away with this
    // process.
    if nix::unistd::geteuid().is_root() {
        enter_private_mounts()?;
    }
    heap::share();
    let runtime = Runtime::new().context("starting the runtime")?;
    let result = runtime.block_on(async {
        // Before the first output of the work: its reader may send a signal at once.
        let stop = stop_signal()?;
        let progress = progress.clone();
        // In a task of its own: the signal is handled and acknowledged even while a step of the work blocks.
        let stopped = tokio::spawn(async move {
            let signal = stop.await;
            progress.note(format!("{signal}: stopping"));
            signal
        });
        tokio::select! {
            result = work => result,
            signal = stopped => bail!("stopped by {}", signal?),
        }
    });
    if result.is_err() {
        progress.tell(Event::Failed);
    }
    // Threads that still wait for a network, a disk or standard input hold nothing that needs them.
    runtime.shutdown_background();
    result
}

/// The signal that asks this process to stop, when it comes. From here on none of them ends the process by
/// itself.
fn stop_signal() -> Result<impl Future<Output = &'static str>> {
    // The kernel would give them to this thread, the first, also while that hangs in a call to a disk.
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
    SigSet::from_iter(signals).thread_block().context("sigprocmask")?;
    let listen = |kind| signal(kind).context("sigaction");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            _ = hangup.recv() => "SIGHUP",
        }
    })
}

/// Prints the error, if there is one, and gives the exit status.
fn status<T>(result: Result<T>, failed: u8) -> u8 {
    match result {
        Ok(_) => 0,
        // Nobody is left to whom it would matter.
        Err(error) if output::is_closed(&error) => output::CLOSED,
        Err(error) => {
            let text = text::printable_message(&format!("{error:#}"));
            output::say(&format!("landfall: {text}"));
            failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_says_what_became_of_the_disk() {
        for (state, failed) in [
            (DiskState::Untouched, 3),
            (DiskState::Changed, 4),
            (DiskState::Cleared, 4),
            (DiskState::Unverified, 4),
            (DiskState::Installed, 5),
        ] {
            assert_eq!(changed_or_not(Ok(()), state), 0);
            assert_eq!(
                changed_or_not(Err(anyhow!("a failure")), state),
                failed,
                "{state:?}"
            );
        }
    }
}
