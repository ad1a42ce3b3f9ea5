//! `landfall run`: a command in an image, in the sandbox in which an installation asks it questions: no disk
//! and no network.

use std::sync::Arc;

use anyhow::Result;

use crate::console::progress::{Event, Phase, Progress};
use crate::container::{self, ExitStatus, Isolation, Network, NetworkAccess, Output, Power, Sandbox};
use crate::image::memory::Purpose;
use crate::image::root::{self, Wanted};

/// Runs `command` in the image; its output is ours.
pub async fn run(
    wanted: &Wanted,
    command: &[String],
    require_isolation: bool,
    progress: &Progress,
) -> Result<ExitStatus> {
    root::check_machine()?;
    let isolation = Isolation::of_this_machine();
    if require_isolation {
        isolation.require()?;
    }
    let found = root::find(wanted, progress).await?;
    container::spec::environment(&found.image.environment)?;
    let memory = found.memory(wanted, Purpose::Run, progress).await?;
    isolation.warn(progress);
    progress.enter(Phase::Pull);
    let image = Arc::clone(&found.image);
    let root = found.mount(&memory, &[], progress).await?;
    let network = Network::new(NetworkAccess::None)?;
    let sandbox = Sandbox::new(&root, command, &image.environment, Power::Asking, &network);
    // From here on the command speaks, and its end is ours.
    progress.tell(Event::PhaseOver);
    let ended = container::run(&sandbox, Output::Copied).await?;
    ended.tell(progress);
    root.close()?;
    Ok(ended.status)
}
