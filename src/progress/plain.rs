//! Progress as plain lines, for serial consoles, pipes and logs: no carriage return, no line twice.

use std::time::{Duration, Instant};

use indicatif::HumanBytes;

use super::{Event, Phase};
use crate::text::printable;

/// A line is due after so much more of the pull …
const STEP_PERCENT: u64 = 5;
/// … or after so long, if anything came at all.
const STEP_TIME: Duration = Duration::from_secs(10);

/// Turns events into lines.
pub(super) struct Plain {
    phase: Option<(Phase, Instant)>,
    pull: Pull,
    last_line_at: Instant,
    last_percent: u64,
}

/// How far the pull is.
#[derive(Default)]
struct Pull {
    layers: usize,
    layers_done: usize,
    total_bytes: u64,
    received_bytes: u64,
}

impl Pull {
    fn percent(&self) -> u64 {
        let hundredfold = u128::from(self.received_bytes) * 100;
        match u128::from(self.total_bytes) {
            0 => 0,
            // What had to be fetched twice counts twice; nobody wants to read 103 %.
            total => u64::try_from(hundredfold / total).unwrap_or(100).min(100),
        }
    }
}

impl Plain {
    pub(super) fn starting(now: Instant) -> Self {
        Self {
            phase: None,
            pull: Pull::default(),
            last_line_at: now,
            last_percent: 0,
        }
    }

    /// The lines that tell of `event`, which happens at `now`.
    pub(super) fn lines(&mut self, event: Event, now: Instant) -> Vec<String> {
        match event {
            Event::Phase(phase) => self.enter(phase, now),
            Event::PullStarted {
                layers,
                compressed_bytes,
            } => {
                self.pull = Pull {
                    layers,
                    total_bytes: compressed_bytes,
                    ..Pull::default()
                };
                (self.last_line_at, self.last_percent) = (now, 0);
                vec![format!(
                    "{layers} layers, {} to pull",
                    HumanBytes(compressed_bytes)
                )]
            }
            Event::Received(bytes) => {
                self.pull.received_bytes = self.pull.received_bytes.saturating_add(bytes);
                self.pull_line(now).into_iter().collect()
            }
            Event::LayerDone { .. } => {
                self.pull.layers_done += 1;
                Vec::new()
            }
            Event::Output(text) => vec![format!("  | {}", printable(&text))],
            Event::Note(text) => vec![format!("note: {}", printable(&text))],
            Event::Warning(text) => vec![format!("warning: {}", printable(&text))],
            Event::Question(text) => vec![printable(&text)],
        }
    }

    fn enter(&mut self, phase: Phase, now: Instant) -> Vec<String> {
        let done = self.phase.replace((phase, now)).map(|(before, since)| {
            format!(
                "{}: done after {:.1} s",
                before.title(),
                now.duration_since(since).as_secs_f64()
            )
        });
        done.into_iter()
            .chain([format!("{} ...", phase.title())])
            .collect()
    }

    fn pull_line(&mut self, now: Instant) -> Option<String> {
        let percent = self.pull.percent();
        let far = percent >= self.last_percent + STEP_PERCENT || (percent == 100 && self.last_percent < 100);
        if !far && now.duration_since(self.last_line_at) < STEP_TIME {
            return None;
        }
        (self.last_line_at, self.last_percent) = (now, percent);
        let Pull {
            layers,
            layers_done,
            total_bytes,
            received_bytes,
        } = self.pull;
        let (received, total) = (HumanBytes(received_bytes), HumanBytes(total_bytes));
        Some(format!(
            "{percent:3} %  {received} of {total}, {layers_done} of {layers} layers done"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Script(Plain, Instant);

    impl Script {
        fn started() -> Self {
            let start = Instant::now();
            Self(Plain::starting(start), start)
        }

        fn at(&mut self, seconds: u64, event: Event) -> Vec<String> {
            self.0.lines(event, self.1 + Duration::from_secs(seconds))
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
