//! The programs of the image, and what they are asked before anything is written: harmless commands, without
//! a disk.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::Notify;

use crate::bootc::messages;
use crate::bootc::probe::{Probe, QUESTIONS};
use crate::bootc::requirements::{NEEDS_NETAVARK_SINCE, PODMAN_ENVIRONMENT, PODMAN_TRIAL, PODMANS_NETWORK};
use crate::console::progress::{Progress, Wait};
use crate::console::text::shortened;
use crate::container::{self, Ended, ExitStatus, Network, Output, Power, Sandbox};
use crate::image::root::Root;

/// How long an answer of bootc's to a question may be, in bytes, and how long it may take: more than on the
/// slowest machine.
const MAX_ANSWER_BYTES: usize = 1 << 20;
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// The programs of the image.
pub struct Programs<'a> {
    pub root: &'a Root,
    pub network: &'a Network,
    pub environment: &'a [String],
    pub progress: &'a Progress,
}

impl Programs<'_> {
    pub fn sandbox<'a>(&'a self, command: &'a [String], power: Power) -> Sandbox<'a> {
        Sandbox::new(self.root, command, self.environment, power, self.network)
    }

    /// Runs a command; gives how it ended, and what it said.
    pub async fn ask(&self, command: &[String]) -> Result<(ExitStatus, String)> {
        let sandbox = self.sandbox(command, Power::Asking);
        let mut answer = String::new();
        let wait = Wait::new(format!("asking the image's {}", subject(command)));
        let command = command.join(" ");
        let _asking = self.progress.waiting(wait.at_most(ANSWER_LIMIT));
        let ended = within(ANSWER_LIMIT, answer_of(&sandbox, &mut answer))
            .await
            .with_context(|| format!("asking the image with {command:?}"))?;
        ended.tell(self.progress);
        Ok((ended.status, answer))
    }

    /// What bootc says of itself.
    pub async fn probe(&self) -> Result<Probe> {
        let mut answers = [String::new(), String::new(), String::new()];
        for (question, answer) in QUESTIONS.iter().zip(&mut answers) {
            let command: Vec<_> = question.iter().map(ToString::to_string).collect();
            let status;
            (status, *answer) = self.ask(&command).await?;
            if !status.success() {
                let lines: Vec<_> = answer.lines().map(str::to_string).collect();
                let (command, reason) = (question.join(" "), messages::reason(&lines));
                bail!("{command} failed in the image with {status}{reason}");
            }
        }
        Probe::parse(answers.each_ref().map(String::as_str))
    }

    /// Starts podman as bootc will, on a storage that goes away. If it complains of something that is
    /// `doubted`, the installation would end there.
    pub async fn try_podman(&self, doubted: &[&str]) -> Result<()> {
        if doubted.is_empty() {
            return Ok(());
        }
        let environment = [self.environment, &PODMAN_ENVIRONMENT.map(String::from)].concat();
        let podmans = Programs {
            environment: &environment,
            ..*self
        };
        let (status, said) = podmans.ask(&PODMAN_TRIAL.map(String::from)).await?;
        if status.success() {
            return self.check_podmans_network(doubted).await;
        }
        // What it logs before its error is of no use here.
        let error = said.lines().rfind(|line| line.starts_with("Error:"));
        let why = error.unwrap_or(&said).split_whitespace().collect::<Vec<_>>();
        let why = why.join(" ");
        let why = shortened(&why);
        if doubted.iter().any(|name| why.contains(name)) {
            bail!(
                "podman, which bootc needs, does not start in the image: {why}: rebuild it with what is \
                 missing"
            );
        }
        self.progress.warn(format!(
            "podman, which bootc needs, did not start in the image: {why}"
        ));
        Ok(())
    }

    /// What podman looks for only where it may mount.
    async fn check_podmans_network(&self, doubted: &[&str]) -> Result<()> {
        if !doubted.contains(&PODMANS_NETWORK) {
            return Ok(());
        }
        let (_, said) = self.ask(&["podman", "--version"].map(String::from)).await?;
        ensure!(
            podmans_version(&said).is_none_or(|version| version < NEEDS_NETAVARK_SINCE),
            "podman, which bootc needs, will not find {PODMANS_NETWORK} in the image: rebuild it with that"
        );
        Ok(())
    }
}

/// The major version that podman says it has.
fn podmans_version(said: &str) -> Option<u32> {
    let version = said.trim().strip_prefix("podman version ")?;
    version.split('.').next()?.parse().ok()
}

/// What a command is about: its words up to the first option.
fn subject(command: &[String]) -> String {
    let words = command.iter().take_while(|word| !word.starts_with('-'));
    words.map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Collects what is printed into `answer`.
async fn answer_of(sandbox: &Sandbox<'_>, answer: &mut String) -> Result<Ended> {
    let too_much = Notify::new();
    let mut collect = |line: String| {
        if answer.len() + line.len() < MAX_ANSWER_BYTES {
            *answer += &format!("{line}\n");
        } else {
            too_much.notify_one();
        }
    };
    tokio::select! {
        biased;
        () = too_much.notified() => bail!("it prints more than {MAX_ANSWER_BYTES} bytes: repair the image"),
        ended = container::run(sandbox, Output::Lines(&mut collect)) => ended,
    }
}

/// What `work` comes to, if that doesn't take too long.
async fn within<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_| bail!("it did not end within {} s: repair the image", limit.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podman_says_which_it_is() {
        assert_eq!(podmans_version("podman version 5.8.2\n"), Some(5));
        assert_eq!(podmans_version("podman version 4.9.4-rhel\n"), Some(4));
        assert_eq!(podmans_version("podman: not found"), None);
    }

    #[test]
    fn a_question_has_room_on_a_line() {
        for (command, expected) in [
            ("bootc --version", "bootc"),
            (
                "bootc install to-disk --wipe --karg=a /dev/vda --help",
                "bootc install to-disk",
            ),
            (
                "bootc install print-configuration",
                "bootc install print-configuration",
            ),
        ] {
            let command: Vec<_> = command.split(' ').map(String::from).collect();
            assert_eq!(subject(&command), expected);
        }
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_is_not_waited_for() {
        let never = std::future::pending::<Result<()>>();
        let error = within(Duration::from_millis(1), never).await.unwrap_err();
        assert!(error.to_string().starts_with("it did not end within"), "{error}");
        assert_eq!(within(ANSWER_LIMIT, async { Ok(1) }).await.unwrap(), 1);
    }
}
