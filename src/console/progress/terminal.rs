//! Progress on a terminal: one bar at the bottom for the current phase and wait, everything else as lines
//! above it.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::event::{Event, Phase, Sink};
use super::wait::{Wait, Waits, human};
use crate::console::output::say;
use crate::console::text::printable;

/// How often the bar moves by itself, so that a quiet phase is seen to be alive.
const TICK: Duration = Duration::from_millis(120);

/// Draws events on standard error. The bar is taken away when it is dropped.
pub(super) struct Bars {
    started: Instant,
    bar: ProgressBar,
    phase: Option<Phase>,
    waits: Waits,
    layers: usize,
    layers_done: usize,
}

impl Bars {
    pub(super) fn starting(now: Instant) -> Self {
        Self {
            started: now,
            bar: ProgressBar::hidden(),
            phase: None,
            waits: Waits::default(),
            layers: 0,
            layers_done: 0,
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.end_phase();
        self.phase = Some(phase);
        (self.layers, self.layers_done) = (0, 0);
        self.spin();
    }

    /// Begins to draw; what is drawn comes with the next beat.
    fn spin(&mut self) {
        self.bar = ProgressBar::new_spinner().with_style(waiting());
        self.bar.enable_steady_tick(TICK);
    }

    fn end_phase(&mut self) {
        let seconds = self.bar.elapsed().as_secs_f64();
        self.bar.finish_and_clear();
        if let Some(phase) = self.phase.take() {
            say(&format!("{}: done after {seconds:.1} s", phase.title()));
        }
    }

    /// Waiting is shown also where there is no phase.
    fn wait(&mut self, wait: Wait, now: Instant) {
        if self.phase.is_none() && self.waits.is_empty() {
            self.spin();
        }
        self.waits.begin(wait, now);
    }

    fn end_wait(&mut self, wait: &Wait) {
        self.waits.end(wait);
        if self.phase.is_none() && self.waits.is_empty() {
            self.bar.finish_and_clear();
        }
    }

    /// Brings what is shown up to date: what is waited for, else how many layers are done, else the phase.
    /// One of them alone has room on a line.
    fn tell_state(&self, now: Instant) {
        let (style, message) = match (self.waits.latest(now), self.phase) {
            (Some(wait), _) => (waiting(), wait),
            (None, Some(_)) if self.layers > 0 => {
                let layers = format!("{} of {} layers", self.layers_done, self.layers);
                (pulling(), layers)
            }
            (None, Some(going_on)) => (phase(), going_on.title().into()),
            (None, None) => return,
        };
        self.bar.set_style(style);
        self.bar.set_message(printable(&message));
    }

    fn line(&self, line: &str) {
        // Without a bar there is nothing to draw above.
        if self.bar.is_finished() || self.bar.is_hidden() {
            say(line)
        } else {
            self.bar.println(line)
        }
    }
}

impl Sink for Bars {
    fn show(&mut self, event: Event, now: Instant) {
        match event {
            Event::Phase(phase) => self.enter(phase),
            Event::PhaseOver => self.end_phase(),
            Event::Failed => {
                self.phase = None;
                self.bar.finish_and_clear();
            }
            Event::PullStarted {
                layers,
                compressed_bytes,
            } => {
                (self.layers, self.layers_done) = (layers, 0);
                self.bar.set_length(compressed_bytes);
            }
            // There may be thousands of them in a second.
            Event::Received(bytes) => return self.bar.inc(bytes),
            Event::LayerDone { .. } => self.layers_done += 1,
            Event::Wait(wait) => self.wait(wait, now),
            Event::WaitOver(wait) => self.end_wait(&wait),
            Event::Output(text) => self.line(&format!("  | {}", printable(&text))),
            Event::Note(text) => self.line(&format!("note: {}", printable(&text))),
            Event::Warning(text) => self.line(&format!("warning: {}", printable(&text))),
            Event::Question(text) => {
                // A bar that moves would draw over the answer.
                self.end_phase();
                say(&printable(&text));
            }
            Event::Done(text) => {
                self.end_phase();
                let time = human(now.duration_since(self.started));
                say(&format!("{} in {time}", printable(&text)));
            }
        }
        self.tell_state(now);
    }

    fn beat(&mut self, now: Instant) {
        self.tell_state(now);
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn waiting() -> ProgressStyle {
    style("{spinner} {msg}")
}

fn phase() -> ProgressStyle {
    style("{spinner} {msg}  {elapsed}")
}

fn pulling() -> ProgressStyle {
    style("{spinner} [{wide_bar}] {percent} %  {bytes} of {total_bytes}  {msg}  {bytes_per_sec}  {eta} left")
        .progress_chars("=> ")
}

fn style(template: &str) -> ProgressStyle {
    // ASCII, as the kernel's own console font has little else.
    ProgressStyle::with_template(template)
        .expect("the template is a constant of this file")
        .tick_chars("|/-\\ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_beside_the_bar() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut bars = Bars::starting(start);
        let wait = Wait::new("asking");
        bars.show(Event::Wait(wait.clone()), start);
        bars.beat(after(20));
        assert_eq!(bars.bar.message(), "asking (20 s so far)");
        bars.show(Event::Phase(Phase::Pull), after(20));
        bars.beat(after(30));
        assert_eq!(bars.bar.message(), "asking (30 s so far)");
        let (layers, compressed_bytes) = (2, 9);
        let started = Event::PullStarted {
            layers,
            compressed_bytes,
        };
        bars.show(started, after(30));
        bars.show(Event::WaitOver(wait), after(30));
        bars.show(Event::LayerDone { index: 1 }, after(31));
        assert_eq!(bars.bar.message(), "1 of 2 layers");
    }

    #[test]
    fn nothing_is_drawn_beside_an_error() {
        let now = Instant::now();
        let mut bars = Bars::starting(now);
        bars.show(Event::Phase(Phase::Save), now);
        assert!(!bars.bar.is_finished());
        bars.show(Event::Failed, now);
        bars.beat(now);
        assert!(bars.bar.is_finished() && bars.phase.is_none());
    }

    #[test]
    fn the_templates_are_well_formed() {
        waiting();
        phase();
        pulling();
    }
}
