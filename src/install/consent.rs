//! The last step before a disk is wiped: lists what will be lost, and asks for confirmation.

use std::io::{IsTerminal, stderr, stdin};

use anyhow::{Context, Result, bail};

use crate::console::progress::{Event, Progress};
use crate::machine::disk::chosen::Expendable;

/// Says what the disk will lose. Where a person sits at a terminal and did not say `--yes`, waits for a
/// "yes".
pub async fn obtain(disk: &Expendable, assumed: bool, progress: &Progress) -> Result<()> {
    if disk.contents().is_empty() {
        return Ok(());
    }
    let path = disk.disk().path.display();
    progress.warn(format!("{path} will lose what it holds: {}", disk.contents()));
    if assumed || !stdin().is_terminal() || !stderr().is_terminal() {
        return Ok(());
    }
    progress.tell(Event::Question(format!("Type yes to destroy what {path} holds:")));
    // While waiting for a person, signals must still be handled.
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        stdin().read_line(&mut line).map(|_| line)
    });
    let answer = answer.await?.context("reading the answer")?;
    if answer.trim() != "yes" {
        bail!("not confirmed: answer yes, or give --yes");
    }
    Ok(())
}
