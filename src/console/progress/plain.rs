//! Progress as plain lines, for serial consoles, pipes and logs: no carriage return, no line twice, and never
//! silent for long.

use std::fmt;
use std::time::{Duration, Instant};

use indicatif::HumanBytes;

use super::event::{Event, Phase, Sink};
use super::wait::{Waits, human, seconds};
use crate::console::output::say;
use crate::console::text::printable;

/// A line is due after this much more of the pull …
const STEP_PERCENT: u64 = 5;
/// … or after this long, if anything came at all.
const STEP_TIME: Duration = Duration::from_secs(10);
/// After this long without a line, one says what the program waits for.
const QUIET_TIME: Duration = Duration::from_secs(10);

pub(super) struct Plain {
    started: Instant,
    phase: Option<(Phase, Instant)>,
    pull: Pull,
    waits: Waits,
    last_line_at: Instant,
    last_pull_line_at: Instant,
    last_percent: u64,
}

#[derive(Default)]
struct Pull {
    layers: usize,
    layers_done: usize,
    total_bytes: u64,
    received_bytes: u64,
}

impl Pull {
    fn is_complete(&self) -> bool {
        self.layers_done == self.layers
    }

    fn percent(&self) -> u64 {
        let hundredfold = u128::from(self.received_bytes) * 100;
        match u128::from(self.total_bytes) {
            0 => 0,
            // What had to be fetched twice counts twice; 103 % would be confusing.
            total => u64::try_from(hundredfold / total).unwrap_or(100).min(100),
        }
    }
}

impl Plain {
    pub(super) fn starting(now: Instant) -> Self {
        Self {
            started: now,
            phase: None,
            pull: Pull::default(),
            waits: Waits::default(),
            last_line_at: now,
            last_pull_line_at: now,
            last_percent: 0,
        }
    }

    /// The lines that tell of `event`, which happens at `now`.
    fn lines(&mut self, event: Event, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        match event {
            Event::Phase(phase) => {
                lines.extend(self.end_phase(now));
                self.phase = Some((phase, now));
                lines.push(format!("{} ...", phase.title()));
            }
            Event::PhaseOver => lines.extend(self.end_phase(now)),
            Event::Failed => self.phase = None,
            Event::PullStarted {
                layers,
                compressed_bytes,
            } => {
                self.pull = Pull {
                    layers,
                    total_bytes: compressed_bytes,
                    ..Pull::default()
                };
                (self.last_pull_line_at, self.last_percent) = (now, 0);
                let size = HumanBytes(compressed_bytes);
                lines.push(format!("{layers} layers, {size} to pull"));
            }
            Event::Received(bytes) => {
                self.pull.received_bytes = self.pull.received_bytes.saturating_add(bytes);
                lines.extend(self.is_pull_line_due(now).then(|| self.pull_line(now)));
            }
            Event::LayerDone { .. } => {
                self.pull.layers_done += 1;
                lines.extend(self.pull.is_complete().then(|| self.pull_line(now)));
            }
            Event::Wait(wait) => self.waits.begin(wait, now),
            Event::WaitOver(wait) => self.waits.end(&wait),
            Event::Output(text) => lines.push(format!("  | {}", printable(&text))),
            Event::Note(text) => lines.push(format!("note: {}", printable(&text))),
            Event::Warning(text) => lines.push(format!("warning: {}", printable(&text))),
            Event::Question(text) => {
                // Nobody types well while lines go by.
                lines.extend(self.end_phase(now));
                lines.push(printable(&text));
            }
            Event::Done(text) => {
                let time = human(now.duration_since(self.started));
                lines.extend(self.end_phase(now));
                lines.push(format!("{} in {time}", printable(&text)));
            }
        }
        if !lines.is_empty() {
            self.last_line_at = now;
        }
        lines
    }

    /// The line that is due when nothing was said for too long.
    fn sign_of_life(&mut self, now: Instant) -> Option<String> {
        if now.duration_since(self.last_line_at) < QUIET_TIME {
            return None;
        }
        let doing = || {
            let (phase, since) = self.phase?;
            let time = seconds(now.duration_since(since));
            Some(format!("{} ({time} so far)", self.doing(phase)))
        };
        let text = self.waits.latest(now).or_else(doing)?;
        self.last_line_at = now;
        Some(format!("... {}", printable(&text)))
    }

    fn doing(&self, phase: Phase) -> String {
        match phase {
            Phase::Pull | Phase::Save if self.pull.layers > 0 => format!("{}: {}", phase.title(), self.pull),
            _ => phase.title().into(),
        }
    }

    fn end_phase(&mut self, now: Instant) -> Option<String> {
        let (phase, since) = self.phase.take()?;
        let seconds = now.duration_since(since).as_secs_f64();
        Some(format!("{}: done after {seconds:.1} s", phase.title()))
    }

    fn is_pull_line_due(&self, now: Instant) -> bool {
        let percent = self.pull.percent();
        let far = percent >= self.last_percent + STEP_PERCENT || (percent == 100 && self.last_percent < 100);
        far || now.duration_since(self.last_pull_line_at) >= STEP_TIME
    }

    fn pull_line(&mut self, now: Instant) -> String {
        (self.last_pull_line_at, self.last_percent) = (now, self.pull.percent());
        self.pull.to_string()
    }
}

impl fmt::Display for Pull {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (received, total) = (HumanBytes(self.received_bytes), HumanBytes(self.total_bytes));
        let (percent, done, layers) = (self.percent(), self.layers_done, self.layers);
        write!(
            out,
            "{percent:3} %  {received} of {total}, {done} of {layers} layers done"
        )
    }
}

impl Sink for Plain {
    fn show(&mut self, event: Event, now: Instant) {
        self.lines(event, now).iter().for_each(|line| say(line));
    }

    fn beat(&mut self, now: Instant) {
        self.sign_of_life(now).iter().for_each(|line| say(line));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::console::progress::Wait;

    struct Script(Plain, Instant);

    impl Script {
        fn started() -> Self {
            let start = Instant::now();
            Self(Plain::starting(start), start)
        }

        fn at(&mut self, seconds: u64, event: Event) -> Vec<String> {
            self.0.lines(event, self.1 + Duration::from_secs(seconds))
        }

        fn quiet_at(&mut self, seconds: u64) -> Option<String> {
            self.0.sign_of_life(self.1 + Duration::from_secs(seconds))
        }
    }

    #[test]
    fn a_phase_ends_with_its_time_when_the_next_begins() {
        let mut script = Script::started();
        assert_eq!(script.at(0, Event::Phase(Phase::Plan)), ["Planning ..."]);
        assert_eq!(
            script.at(3, Event::Phase(Phase::Pull)),
            [
                "Planning: done after 3.0 s",
                "Pulling and unpacking the layers ..."
            ]
        );
    }

    #[test]
    fn a_pull_tells_of_every_five_percent_and_every_ten_seconds() {
        let mut script = Script::started();
        let lines = script.at(
            0,
            Event::PullStarted {
                layers: 2,
                compressed_bytes: 1000,
            },
        );
        assert_eq!(lines, ["2 layers, 1000 B to pull"]);
        for (at, received, shown) in [
            (0, 49, None),
            (0, 1, Some("  5 %  50 B of 1000 B, 0 of 2 layers done")),
            (9, 49, None),
            (10, 0, Some("  9 %  99 B of 1000 B, 0 of 2 layers done")),
            (19, 0, None),
            (20, 0, Some("  9 %  99 B of 1000 B, 0 of 2 layers done")),
            (20, 881, Some(" 98 %  980 B of 1000 B, 0 of 2 layers done")),
            (20, 20, Some("100 %  1000 B of 1000 B, 0 of 2 layers done")),
            (20, 20, None),
        ] {
            let lines = script.at(at, Event::Received(received));
            assert_eq!(
                lines.first().map(String::as_str),
                shown,
                "at {at}, {received} more"
            );
        }
    }

    #[test]
    fn a_pull_ends_with_all_its_layers() {
        let mut script = Script::started();
        script.at(
            0,
            Event::PullStarted {
                layers: 2,
                compressed_bytes: 1000,
            },
        );
        let lines = script.at(1, Event::Received(1000));
        assert_eq!(lines, ["100 %  1000 B of 1000 B, 0 of 2 layers done"]);
        assert_eq!(script.at(2, Event::LayerDone { index: 1 }), [""; 0]);
        let lines = script.at(3, Event::LayerDone { index: 0 });
        assert_eq!(lines, ["100 %  1000 B of 1000 B, 2 of 2 layers done"]);
    }

    #[test]
    fn who_is_quiet_says_what_is_waited_for_and_for_how_long() {
        let mut script = Script::started();
        // Nothing is.
        assert_eq!(script.quiet_at(60), None);
        script.at(60, Event::Phase(Phase::Install));
        assert_eq!(script.quiet_at(69), None);
        let expected = "... Running the image's installer (10 s so far)";
        assert_eq!(script.quiet_at(70).as_deref(), Some(expected));
        let given = Arc::new(AtomicU64::new(1));
        let bytes = Arc::clone(&given);
        let wait = Wait::telling(move || format!("{} of 9", bytes.load(Relaxed)));
        script.at(75, Event::Wait(wait.clone()));
        assert_eq!(script.quiet_at(79), None);
        assert_eq!(script.quiet_at(80).as_deref(), Some("... 1 of 9 (5 s so far)"));
        // Any line is a sign of life.
        script.at(85, Event::Output("working".into()));
        assert_eq!(script.quiet_at(90), None);
        given.store(2, Relaxed);
        assert_eq!(script.quiet_at(95).as_deref(), Some("... 2 of 9 (20 s so far)"));
        let inner = Wait::new("\x1b[31mthe disk").at_most(Duration::from_secs(60));
        script.at(100, Event::Wait(inner.clone()));
        let expected = "... the disk (20 s of at most 1 min 0 s)";
        assert_eq!(script.quiet_at(120).as_deref(), Some(expected));
        script.at(121, Event::WaitOver(inner));
        assert_eq!(script.quiet_at(130).as_deref(), Some("... 2 of 9 (55 s so far)"));
        script.at(131, Event::WaitOver(wait));
        script.at(131, Event::PhaseOver);
        assert_eq!(script.quiet_at(200), None);
    }

    #[test]
    fn the_last_word_has_the_time_of_all() {
        let mut script = Script::started();
        script.at(180, Event::Phase(Phase::Verify));
        assert_eq!(
            script.at(200, Event::Done("installed x".into())),
            [
                "Verifying the disk: done after 20.0 s",
                "installed x in 3 min 20 s"
            ]
        );
        assert_eq!(script.quiet_at(300), None);
    }

    #[test]
    fn what_failed_is_not_said_to_be_done_or_to_go_on() {
        let mut script = Script::started();
        script.at(0, Event::Phase(Phase::Install));
        assert_eq!(script.at(9, Event::Failed), [""; 0]);
        assert_eq!(script.quiet_at(60), None);
    }

    #[test]
    fn a_pull_of_nothing_and_bytes_before_its_start_divide_by_nothing() {
        let mut script = Script::started();
        assert_eq!(script.at(0, Event::Received(7)), [""; 0]);
        script.at(
            0,
            Event::PullStarted {
                layers: 0,
                compressed_bytes: 0,
            },
        );
        assert_eq!(script.at(0, Event::Received(u64::MAX)), [""; 0]);
    }

    #[test]
    fn what_the_image_says_is_marked_as_such() {
        let mut script = Script::started();
        assert_eq!(
            script.at(0, Event::Output("warning: \x1b[31mmine".into())),
            ["  | warning: mine"]
        );
        assert_eq!(script.at(0, Event::Warning("ours".into())), ["warning: ours"]);
        assert_eq!(script.at(0, Event::Note("ours".into())), ["note: ours"]);
    }
}
