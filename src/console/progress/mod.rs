//! What happens, as events; who shows them is decided once, at the start.
//!
//! Whatever comes from the image is text of a stranger: no byte of it that could steer a terminal gets through.

mod plain;
mod terminal;
mod wait;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;

use crate::console::output::say;
use crate::console::text::printable;
use crate::sys::terminal::has_a_size;
use plain::Plain;
use terminal::Bars;
pub use wait::{Wait, Waiting};

/// How often a sink is asked whether it has something to say by itself.
const BEAT: Duration = Duration::from_secs(1);

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

/// How a person sees progress (`--progress`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// Bars where the terminal is fit for them, else plain lines.
    #[default]
    Auto,
    /// One bar that moves; without a terminal, plain lines.
    Bars,
    /// A line for each phase and every few percent, and when nothing else was said for ten seconds, one that says what is
    /// waited for: for serial consoles, pipes and logs.
    Plain,
    /// Nothing but questions, warnings and errors.
    None,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A phase begins; the one before is over.
    Phase(Phase),
    /// The phase is over, and no other begins: what follows speaks for itself.
    PhaseOver,
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
    /// What goes on has failed or was stopped, and an error will say so: nothing is shown beside that.
    Failed,
    /// The last word of a command that did what it was asked for. It is shown with the time that it took.
    Done(String),
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
            Shown::Bars => Self::to_sink(Bars::starting(Instant::now())),
            Shown::Plain => Self::to_sink(Plain::starting(Instant::now())),
            Shown::WarningsOnly => Self::to(|event| match event {
                Event::Warning(text) => say(&format!("warning: {}", printable(&text))),
                Event::Question(text) => say(&printable(&text)),
                _ => {}
            }),
        }
    }

    fn to_sink(sink: impl Sink + Send + 'static) -> Self {
        let (sink, first) = (Arc::new(Mutex::new(sink)), Once::new());
        Self::to(move |event| {
            // Not before there is something to tell: the container's helper must have one thread alone.
            first.call_once(|| keep_beating(&sink));
            lock(&sink).show(event, Instant::now());
        })
    }

    /// Tells that `event` happened.
    pub fn tell(&self, event: Event) {
        (self.0)(event);
    }

    /// Tells that something is waited for, as long as what this gives is kept.
    pub fn waiting(&self, wait: Wait) -> Waiting {
        Waiting::begin(self.clone(), wait)
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

/// Something that shows events.
trait Sink {
    fn show(&mut self, event: Event, now: Instant);

    /// Time goes by: what is quiet for too long is said to be alive.
    fn beat(&mut self, now: Instant);
}

/// A sink that once panicked in another thread can still show what follows.
fn lock<S>(sink: &Mutex<S>) -> MutexGuard<'_, S> {
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets time go by for `sink` as long as anybody tells it events.
fn keep_beating<S: Sink + Send + 'static>(sink: &Arc<Mutex<S>>) {
    let sink = Arc::downgrade(sink);
    let beating = move || {
        while let Some(sink) = sink.upgrade() {
            lock(&sink).beat(Instant::now());
            drop(sink);
            thread::sleep(BEAT);
        }
    };
    // Without a thread there is less to see, and no less done.
    let _ = thread::Builder::new().name("progress".into()).spawn(beating);
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
    fn time_goes_by_for_a_sink_as_long_as_it_is_used() {
        struct Beats(std::sync::mpsc::Sender<()>);
        impl Sink for Beats {
            fn show(&mut self, _: Event, _: Instant) {}
            fn beat(&mut self, _: Instant) {
                let _ = self.0.send(());
            }
        }
        let (sender, beats) = std::sync::mpsc::channel();
        let progress = Progress::to_sink(Beats(sender));
        // Nothing was told yet.
        assert!(beats.try_recv().is_err());
        let waiting = progress.waiting(Wait::new("a beat"));
        assert!(beats.recv().is_ok() && beats.recv().is_ok());
        drop((waiting, progress));
        // The sink is gone with the last who could tell it something.
        while beats.recv().is_ok() {}
    }

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
