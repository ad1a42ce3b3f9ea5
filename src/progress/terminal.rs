//! Progress on a terminal: one bar at the bottom for the phase that goes on, everything else as lines above it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::{Event, Phase};
use crate::output::say;
use crate::text::printable;

/// How often the bar moves by itself, so that a quiet phase is seen to be alive.
const TICK: Duration = Duration::from_millis(120);

/// Draws events on standard error. The bar is taken away when it is dropped.
pub(super) struct Bars {
    bar: ProgressBar,
    phase: Option<Phase>,
    layers: usize,
    layers_done: usize,
}

impl Bars {
    pub(super) fn on_stderr() -> Self {
        Self {
            bar: ProgressBar::new_spinner(),
            phase: None,
            layers: 0,
            layers_done: 0,
        }
    }

    pub(super) fn show(&mut self, event: Event) {
        match event {
            Event::Phase(phase) => self.enter(phase),
            Event::PullStarted {
                layers,
                compressed_bytes,
            } => {
                (self.layers, self.layers_done) = (layers, 0);
                self.bar.set_style(pulling());
                self.bar.set_length(compressed_bytes);
                self.tell_layers();
            }
            Event::Received(bytes) => self.bar.inc(bytes),
            Event::LayerDone { .. } => {
                self.layers_done += 1;
                self.tell_layers();
            }
            Event::Output(text) => self.line(&format!("  | {}", printable(&text))),
            Event::Note(text) => self.line(&format!("note: {}", printable(&text))),
            Event::Warning(text) => self.line(&format!("warning: {}", printable(&text))),
            Event::Question(text) => {
                // A bar that moves would draw over the answer.
                self.end_phase();
                say(&printable(&text));
            }
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.end_phase();
        self.phase = Some(phase);
        self.bar = ProgressBar::new_spinner()
            .with_style(waiting())
            .with_message(phase.title());
        self.bar.enable_steady_tick(TICK);
    }

    fn end_phase(&mut self) {
        let seconds = self.bar.elapsed().as_secs_f64();
        self.bar.finish_and_clear();
        if let Some(phase) = self.phase.take() {
            say(&format!("{}: done after {seconds:.1} s", phase.title()));
        }
    }

    fn tell_layers(&self) {
        self.bar
            .set_message(format!("{} of {} layers", self.layers_done, self.layers));
    }

    fn line(&self, line: &str) {
        // Before the first phase there is no bar to draw above.
        if self.phase.is_some() {
            self.bar.println(line)
        } else {
            say(line)
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn waiting() -> ProgressStyle {
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
    fn the_templates_are_well_formed() {
        waiting();
        pulling();
    }
}
