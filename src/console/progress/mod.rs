//! What happens, as events; how they are shown is decided once, at the start.
//!
//! Text from the image is untrusted: no byte of it that could steer a terminal gets through.

mod event;
mod plain;
mod terminal;
mod wait;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;

use crate::console::output::say;
use crate::console::text::printable;
use event::Sink;
pub use event::{Event, Phase};
use plain::Plain;
use terminal::Bars;
pub use wait::Wait;

/// How often a sink is asked whether it has something to say by itself.
const BEAT: Duration = Duration::from_secs(1);

/// How a person sees progress (`--progress`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Bars if the terminal supports them, else plain lines.
    #[default]
    Auto,
    /// One bar that moves; without a terminal, plain lines.
    Bars,
    /// Lines for serial consoles, pipes and logs: each phase, every few percent, and after ten silent seconds
    /// what it waits for.
    Plain,
    /// Only questions, warnings and errors.
    None,
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

    /// Tells that a phase begins. The one before is over.
    pub fn enter(&self, phase: Phase) {
        self.tell(Event::Phase(phase));
    }

    /// Tells that something is waited for, as long as what this gives is kept.
    pub fn waiting(&self, wait: Wait) -> Waiting {
        self.tell(Event::Wait(wait.clone()));
        Waiting {
            progress: self.clone(),
            wait,
        }
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

/// As long as there is one, what it is made of is waited for.
#[must_use = "the wait is over when it is dropped"]
pub struct Waiting {
    progress: Progress,
    wait: Wait,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.progress.tell(Event::WaitOver(self.wait.clone()));
    }
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

/// Whether this is a terminal that knows its size. Terminal windows and screens do, serial lines don't.
fn has_a_size(fd: impl AsFd) -> bool {
    tcgetwinsize(fd).is_ok_and(|size| size.ws_row > 0 && size.ws_col > 0)
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
            has_a_size: has_a_size(&stderr),
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
    use nix::pty::{Winsize, openpty};

    #[test]
    fn a_window_has_a_size_and_a_line_has_none() {
        let sized = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let window = openpty(Some(&sized), None).unwrap();
        let line = openpty(None, None).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(has_a_size(&window.slave));
        assert!(!has_a_size(&line.slave));
        assert!(!has_a_size(&file));
    }

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
        // The sink is gone with the last sender of events.
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
