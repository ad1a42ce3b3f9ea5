//! Man pages and completions, from the one definition of commands and options.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap_complete::Shell;

fn main() -> Result<()> {
    let directory = std::env::args_os().nth(1).context("say where to")?;
    write(Path::new(&directory))
}

/// Writes them to `directory`.
fn write(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    clap_mangen::generate_to(landfall::cli::command(), directory).context("writing man pages")?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut landfall::cli::command(), "landfall", directory)
            .with_context(|| format!("writing completions for {shell}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the page of `command` has all of its options, and so have those below it; gives the
    /// options.
    fn check_pages(command: &clap::Command, name: &str, directory: &Path) -> Vec<String> {
        let page = fs::read_to_string(directory.join(format!("{name}.1"))).unwrap();
        let options = command.get_arguments().filter_map(clap::Arg::get_long);
        let mut all: Vec<String> = options.map(Into::into).collect();
        for option in &all {
            let shown = format!("\\-\\-{}\\fR", option.replace('-', "\\-"));
            assert!(page.contains(&shown), "{shown} is not in {name}.1");
        }
        let below = command.get_subcommands();
        for each in below.filter(|each| !each.is_hide_set() && each.get_name() != "help") {
            all.extend(check_pages(
                each,
                &format!("{name}-{}", each.get_name()),
                directory,
            ));
        }
        all
    }

    #[test]
    fn every_option_of_every_command_is_there() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path()).unwrap();
        let mut command = landfall::cli::command();
        command.build();
        let options = check_pages(&command, "landfall", directory.path());
        for required in ["wipe", "karg", "config", "secrets"] {
            assert!(options.iter().any(|option| option == required), "{required}");
        }
        for (file, before) in [
            ("landfall.bash", "--"),
            ("_landfall", "--"),
            ("landfall.fish", "-l "),
        ] {
            let text = fs::read_to_string(directory.path().join(file)).unwrap();
            for option in &options {
                assert!(
                    text.contains(&format!("{before}{option}")),
                    "{option} is not in {file}"
                );
            }
        }
    }
}
