//! `landfall run`: a command in an image, in the sandbox that an installation has, with no disk and no network.

use anyhow::Result;

use crate::console::progress::{Event, Phase, Progress};
use crate::container::network::{NetworkAccess, Seal};
use crate::container::run::Output;
use crate::container::{self, Devices, ExitStatus, Sandbox};
use crate::image::memory::Purpose;
use crate::image::root::{self, Wanted};

/// Runs `command` in the image; its output is ours.
pub async fn run(wanted: &Wanted, command: &[String], progress: &Progress) -> Result<ExitStatus> {
    root::check_machine()?;
    let found = root::find(wanted, progress).await?;
    container::spec::environment(&found.image.environment)?;
    let memory = found.memory(wanted, Purpose::Run, progress).await?;
    progress.tell(Event::Phase(Phase::Pull));
    let root = found.mount(&memory, &[], progress).await?;
    let seal = Seal::new(NetworkAccess::None)?;
    let sandbox = Sandbox {
        root: root.path().into(),
        command: command.to_vec(),
        environment: found.image.environment.clone(),
        devices: Devices::Harmless,
        network: seal.network(),
    };
    // From here on the command speaks, and its end is ours.
    progress.tell(Event::PhaseOver);
    let finished = container::run(&sandbox, &root.scratch("run"), Output::Inherit).await?;
    root.close()?;
    Ok(finished.status)
}
