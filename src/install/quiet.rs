//! A ramdisk that is Landfall's alone has nothing in it that an image's programs could look for, and no
//! network that they could use, while they run.

use std::path::PathBuf;

use anyhow::Result;

use crate::console::progress::Progress;
use crate::container::NetworkAccess;
use crate::image::root::Root;
use crate::image::source::name::ImageName;
use crate::machine::first_process::{FirstProcess, Order};
use crate::machine::ramdisk;
use crate::request;

/// The ramdisk of the first process that started this one.
pub struct Ramdisk {
    first_process: FirstProcess,
    /// What was put into it to be read once, wherever it is.
    secrets: Vec<PathBuf>,
}

impl Ramdisk {
    /// Elsewhere there is none: files and interfaces are somebody's, and stay as they are.
    pub fn find(request: &request::Install) -> Result<Option<Self>> {
        let first_process = FirstProcess::at_standard_input()?;
        Ok(first_process.map(|first_process| Self {
            first_process,
            secrets: request
                .image
                .source
                .secret_files()
                .into_iter()
                .chain(request.config_drive.clone())
                .collect(),
        }))
    }
}

/// While this is there, the image's programs may run.
pub struct Quiet<'a> {
    /// Whom to ask for the network again, if it was taken down.
    first_process: Option<FirstProcess>,
    progress: &'a Progress,
}

impl<'a> Quiet<'a> {
    /// Everything that is to be read from the ramdisk has been read; `network_is_for` says who still needs the
    /// network, if anybody does.
    pub fn begin(
        ramdisk: Option<Ramdisk>,
        network_is_for: Option<&str>,
        progress: &'a Progress,
    ) -> Result<Self> {
        let mut quiet = Self {
            first_process: None,
            progress,
        };
        let Some(ramdisk) = ramdisk else { return Ok(quiet) };
        ramdisk
            .secrets
            .iter()
            .try_for_each(|path| ramdisk::remove(path))?;
        ramdisk.first_process.ask(Order::ForgetConfiguration)?;
        if let Some(reason) = network_is_for {
            progress.note(format!(
                "the network stays up while the image's programs run: {reason}"
            ));
            return Ok(quiet);
        }
        let down = ramdisk.first_process.ask(Order::NetworkDown);
        // Also if it went down in part.
        quiet.first_process = Some(ramdisk.first_process);
        quiet.warn_unless(down);
        Ok(quiet)
    }

    fn warn_unless(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.progress.warn(format!("{error:#}"));
        }
    }
}

/// The network comes up again, however it ends.
impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        if let Some(first_process) = &self.first_process {
            self.warn_unless(first_process.ask(Order::NetworkUp));
        }
    }
}

/// Why the network must stay while the image's programs run.
pub fn needs_network(request: &request::Install, root: &Root) -> Option<&'static str> {
    if request.network == NetworkAccess::Host {
        return Some("--network host gives it to them");
    }
    let is_far = matches!(request.image.name, ImageName::Registry(_));
    (is_far && root.source().is_some()).then_some("not all layers could be kept in memory")
}
