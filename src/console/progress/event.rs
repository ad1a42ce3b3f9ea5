//! What can happen, and what shows it.

use std::time::Instant;

use serde::Serialize;

use super::wait::Wait;

/// The steps of an installation, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Finding the image and checking all that can be checked.
    Plan,
    /// Pulling, verifying and unpacking the layers.
    Pull,
    /// Looking for what bootc needs, and asking it.
    Examine,
    /// Pulling the layers into a layout, verified.
    Save,
    /// The image installs itself.
    Install,
    /// Checking what is on the disk.
    Verify,
    /// Writing the config drive.
    ConfigDrive,
}

impl Phase {
    /// What a person reads while it goes on.
    pub fn title(self) -> &'static str {
        match self {
            Self::Plan => "Planning",
            Self::Pull => "Pulling and unpacking the layers",
            Self::Examine => "Examining the image",
            Self::Save => "Pulling the layers",
            Self::Install => "Running the image's installer",
            Self::Verify => "Verifying the disk",
            Self::ConfigDrive => "Writing the config drive",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A phase begins; the one before is over.
    Phase(Phase),
    /// The phase is over, and no other begins: what follows speaks for itself.
    PhaseOver,
    /// The pull begins: its layers and their compressed bytes.
    PullStarted {
        /// The number of layers.
        layers: usize,
        /// The compressed size of all layers, in bytes.
        compressed_bytes: u64,
    },
    /// This many more compressed bytes have arrived.
    Received(u64),
    /// A layer is verified and unpacked.
    LayerDone {
        /// The layer's position from the bottom, from 0.
        index: usize,
    },
    /// Something begins that may take long.
    Wait(Wait),
    /// It is over.
    WaitOver(Wait),
    /// A line that the image's own programs printed.
    Output(String),
    /// Something worth knowing.
    Note(String),
    /// Something worth worrying about.
    Warning(String),
    /// Something that is waited for until a person types it.
    Question(String),
    /// The current work has failed or was stopped, and an error will say so: nothing else is shown.
    Failed,
    /// The last word of a command that did what it was asked for. It is shown with the time that it took.
    Done(String),
}

/// Something that shows events.
pub(super) trait Sink {
    fn show(&mut self, event: Event, now: Instant);

    /// Time has passed: work that was quiet for too long is reported as alive.
    fn beat(&mut self, now: Instant);
}
