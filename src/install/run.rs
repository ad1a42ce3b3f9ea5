//! Running the image's bootc, which wipes the disk: only who may change the disk can do it.

use std::collections::VecDeque;

use anyhow::{Result, anyhow, bail};

use super::programs::Programs;
use super::uefi::Booted;
use super::unfinished::Unfinished;
use crate::bootc::{arguments, messages};
use crate::console::progress::{Event, Progress, Wait};
use crate::container::relay::{Relay, Served};
use crate::container::{self, Output, Power, Target};
use crate::machine::disk::layout::BlockSetup;

/// How many lines of bootc's output are kept, and how many bytes.
const KEPT_LINES: usize = 2000;
const KEPT_BYTES: usize = 1 << 20;

impl Unfinished<'_> {
    /// Runs `command`, which may write to the disk, while `relay` gives it the image.
    pub async fn run(
        &mut self,
        command: &[String],
        block_setup: BlockSetup,
        programs: &Programs<'_>,
        relay: Relay,
    ) -> Result<()> {
        let target = Target {
            disk: self.disk().node.clone(),
            efivars: Booted::find_out() == Booted::ByUefi,
            luks: block_setup == BlockSetup::Tpm2Luks,
        };
        let fetching = self.progress.waiting(Wait::telling(relay.tell_progress()));
        let ran = self.run_alone(command, target, programs).await;
        drop(fetching);
        explain(ran, &relay.shutdown().await, self.progress)
    }

    /// Shows and keeps what bootc prints.
    async fn run_alone(&mut self, command: &[String], target: Target, programs: &Programs<'_>) -> Result<()> {
        let command = arguments::in_shell(command);
        let sandbox = programs.sandbox(&command, Power::Installing(target));
        let (mut kept, progress) = (Kept::default(), self.progress);
        let mut keep = |line: String| {
            progress.tell(Event::Output(line.clone()));
            kept.push(line);
        };
        let ended = container::run(&sandbox, Output::Lines(&mut keep)).await;
        let report = self.report.bootc.get_or_insert_default();
        report.output = kept.lines.into();
        let ended = ended?;
        ended.tell(progress);
        let status = ended.status;
        report.exit_status = Some(status.to_string());
        report.refused = ended.refused;
        if status.success() {
            return Ok(());
        }
        let reason = messages::reason(&report.output);
        bail!("the image's bootc failed with {status}{reason}")
    }
}

/// How bootc's run ended, with what the image's source said meanwhile: bootc itself only saw that it did not
/// get a blob.
fn explain(ran: Result<()>, served: &Served, progress: &Progress) -> Result<()> {
    match (ran, served.failures.first()) {
        (Err(error), Some(failure)) => Err(anyhow!(
            "the image's source failed while bootc read from it ({failure}), and {error:#}"
        )),
        (Ok(()), Some(failure)) => {
            progress.note(format!(
                "the image's source failed while bootc read from it, but bootc tried again: {failure}"
            ));
            Ok(())
        }
        (ran, None) => ran,
    }
}

/// The last lines of an output, and not too much of them.
#[derive(Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Kept {
    fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > KEPT_LINES || self.bytes > KEPT_BYTES {
            self.bytes -= self.lines.pop_front().map_or(self.bytes, |line| line.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_output_is_kept() {
        let mut kept = Kept::default();
        (0..KEPT_LINES + 10).for_each(|number| kept.push(number.to_string()));
        assert_eq!((kept.lines.len(), kept.lines[0].as_str()), (KEPT_LINES, "10"));
        (0..1000).for_each(|_| kept.push("x".repeat(4096)));
        assert_eq!(kept.lines.len(), KEPT_BYTES / 4096);
        assert_eq!(kept.bytes, kept.lines.iter().map(String::len).sum::<usize>());
        kept.push("x".repeat(KEPT_BYTES + 1));
        assert_eq!((kept.lines.len(), kept.bytes), (0, 0));
    }
}
