//! `landfall run`: a command in an image, in the sandbox that an installation has, with no disk and no network.

use anyhow::Result;

use crate::cli::{self, NetworkAccess};
use crate::console::progress::{Event, Phase, Progress};
use crate::container::network::Seal;
use crate::container::run::Output;
use crate::container::{self, Devices, ExitStatus, Sandbox};
use crate::image::memory::Purpose;
use crate::image::root;

/// Runs `command` in the image that was typed; its output is ours.
pub async fn run(typed: &cli::Image, command: &[String], progress: &Progress) -> Result<ExitStatus> {
    root::check_machine()?;
    let found = root::find(typed, progress).await?;
    container::spec::environment(&found.image.environment)?;
    let memory = found.memory(typed, Purpose::Run, progress).await?;
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
