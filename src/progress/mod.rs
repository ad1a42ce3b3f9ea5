//! What happens, as events; who shows them is decided once, at the start.
//!
//! Whatever comes from the image is text of a stranger: no byte of it that could steer a terminal gets through.

mod plain;
mod terminal;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clap::ValueEnum;
use serde::Serialize;

use crate::output::say;
use crate::sys::terminal::has_a_size;
use crate::text::printable;
use plain::Plain;
use terminal::Bars;

/// The steps of an installation, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Finding the image and checking all that can be checked.
    Plan,
    /// Pulling, verifying and unpacking the layers.
    Pull,
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
            Self::Save => "Pulling the layers",
            Self::Install => "Running the image's installer",
            Self::Verify => "Verifying the disk",
            Self::ConfigDrive => "Writing the config drive",
        }
    }
}

/// How a person sees progress (`--progress`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// Bars where the terminal is fit for them, else plain lines.
    #[default]
    Auto,
    /// One bar that moves; without a terminal, plain lines.
    Bars,
    /// A line for each phase and every few percent: for serial consoles, pipes and logs.
    Plain,
    /// Nothing but warnings.
    None,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A phase begins.
    Phase(Phase),
    /// The pull begins: so many layers with so many compressed bytes.
    PullStarted {
        /// The number of layers.
        layers: usize,
        /// The compressed size of all layers, in bytes.
        compressed_bytes: u64,
    },
    /// So many more compressed bytes have arrived.
    Received(u64),
    /// A layer is verified and unpacked.
    LayerDone {
        /// The layer's position from the bottom, from 0.
        index: usize,
    },
    /// A line that the image's own programs printed.
    Output(String),
    /// Something worth knowing.
    Note(String),
    /// Something worth worrying about.
    Warning(String),
    /// Something that is waited for until a person types it.
    Question(String),
}

/// Where events go. Cheap to clone and to share between threads.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(Event) + Send + Sync>);

impl Progress {
    /// Sends every event to `sink`.
    pub fn to(sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Shows nothing.
    pub fn silent() -> Self {
        Self::to(|_| {})
    }

    /// Shows events to a person who reads standard error.
    pub fn on_stderr(style: Style) -> Self {
        match style.on(&Stderr::look()) {
            Shown::Bars => Self::to_sink(Bars::on_stderr(), Bars::show),
            Shown::Plain => Self::to_sink(Plain::starting(Instant::now()), |plain, event| {
                plain
                    .lines(event, Instant::now())
                    .iter()
                    .for_each(|line| say(line));
            }),
            Shown::WarningsOnly => Self::to(|event| match event {
                Event::Warning(text) => say(&format!("warning: {}", printable(&text))),
                Event::Question(text) => say(&printable(&text)),
                _ => {}
            }),
        }
    }

    fn to_sink<S: Send + 'static>(sink: S, show: impl Fn(&mut S, Event) + Send + Sync + 'static) -> Self {
        let sink = Mutex::new(sink);
        // A sink that once panicked in another thread can still show what follows.
        Self::to(move |event| show(&mut sink.lock().unwrap_or_else(PoisonError::into_inner), event))
    }

    /// Tells that `event` happened.
    pub fn tell(&self, event: Event) {
        (self.0)(event);
    }

    /// Tells something worth knowing.
    pub fn note(&self, text: impl Into<String>) {
        self.tell(Event::Note(text.into()));
    }

    /// Tells something worth worrying about.
    pub fn warn(&self, text: impl Into<String>) {
        self.tell(Event::Warning(text.into()));
    }
}

/// What decides between bars and lines.
struct Stderr {
    is_terminal: bool,
    has_a_size: bool,
    term: Option<String>,
}

impl Stderr {
    fn look() -> Self {
        let stderr = io::stderr();
        Self {
            is_terminal: stderr.is_terminal(),
            has_a_size: has_a_size(stderr.as_fd()),
            term: std::env::var("TERM").ok(),
        }
    }
}

#[derive(Debug, PartialEq)]
enum Shown {
    Bars,
    Plain,
    WarningsOnly,
}

impl Style {
    /// A serial console is a terminal, but one that doesn't know its size; its log is better without bars.
    fn on(self, stderr: &Stderr) -> Shown {
        let fit = stderr.has_a_size && !matches!(stderr.term.as_deref(), None | Some("" | "dumb"));
        match self {
            Self::None => Shown::WarningsOnly,
            Self::Auto if stderr.is_terminal && fit => Shown::Bars,
            Self::Bars if stderr.is_terminal => Shown::Bars,
            Self::Auto | Self::Bars | Self::Plain => Shown::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_only_where_they_can_be_drawn() {
        use Shown::{Bars, Plain, WarningsOnly};
        for (is_terminal, has_a_size, term, auto, bars) in [
            (true, true, Some("xterm"), Bars, Bars),
            (true, true, Some("dumb"), Plain, Bars),
            (true, true, None, Plain, Bars),
            (true, false, Some("linux"), Plain, Bars),
            (false, false, Some("xterm"), Plain, Plain),
        ] {
            let stderr = Stderr {
                is_terminal,
                has_a_size,
                term: term.map(str::to_owned),
            };
            assert_eq!(
                Style::Auto.on(&stderr),
                auto,
                "auto, {is_terminal} {has_a_size} {term:?}"
            );
            assert_eq!(
                Style::Bars.on(&stderr),
                bars,
                "bars, {is_terminal} {has_a_size} {term:?}"
            );
            assert_eq!(Style::Plain.on(&stderr), Plain);
            assert_eq!(Style::None.on(&stderr), WarningsOnly);
        }
    }
}
