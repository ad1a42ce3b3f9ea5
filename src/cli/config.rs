//! The configuration file: defaults for options, in TOML, by their long names. A key holds for every command
//! that has the option; what is typed wins over it as a whole.

use std::fs;
use std::io::ErrorKind::{NotADirectory, NotFound};
use std::path::Path;

use clap::Command;
use toml::{Table, Value};

use super::options::{Takes, options};

/// Where it is, unless `--config` says otherwise.
pub const USUAL: &str = "/etc/landfall/config.toml";

/// What no file may say: nothing is wiped but by those who type it, each time. (What a command can't do
/// without, its disk for one, is typed each time, too.)
const TYPED_ONLY: [&str; 4] = ["clear-stale-config-drives", "config", "wipe", "yes"];

/// `command` with the defaults of the file at `given`, or in the usual place; `None` if there is no file.
pub fn load(command: Command, given: Option<&Path>) -> Result<Option<(Command, String)>, String> {
    let path = given.unwrap_or(Path::new(USUAL));
    let shown = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => match with_defaults(command, &text) {
            Ok(command) => Ok(Some((command, shown))),
            Err(problem) => Err(format!("{shown}: {problem}")),
        },
        Err(error) if given.is_none() && matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

/// `command` with the defaults that `text` has.
fn with_defaults(command: Command, text: &str) -> Result<Command, String> {
    let table: Table = toml::from_str(text).map_err(|error| in_one_line(&error))?;
    let mut known = options(&command);
    known.retain(|name, _| !TYPED_ONLY.contains(&name.as_str()));
    table.into_iter().try_fold(command, |command, (key, value)| {
        if TYPED_ONLY.contains(&key.as_str()) {
            return Err(format!("{key} is not for a file: it has to be typed"));
        }
        let Some(takes) = known.get(&key) else {
            let known: Vec<_> = known.keys().map(String::as_str).collect();
            return Err(format!(
                "the key {key} is unknown; known are {}",
                known.join(", ")
            ));
        };
        let values = values(*takes, value).map_err(|needed| format!("{key} needs {needed}"))?;
        Ok(set_default(command, &key, &values))
    })
}

/// What would be typed, or what is needed instead.
fn values(takes: Takes, value: Value) -> Result<Vec<&'static str>, &'static str> {
    let text = match (takes, value) {
        (Takes::Nothing | Takes::Bool, Value::Boolean(value)) => value.to_string(),
        (Takes::Value | Takes::Values, Value::String(value)) => value,
        (Takes::Value | Takes::Values, Value::Integer(value)) => value.to_string(),
        (Takes::Values, Value::Array(all)) => {
            let all = all.into_iter().map(|value| values(Takes::Value, value));
            return all.collect::<Result<Vec<_>, _>>().map(|all| all.concat());
        }
        (Takes::Nothing | Takes::Bool, _) => return Err("true or false"),
        (Takes::Value, _) => return Err("a string or a number"),
        (Takes::Values, _) => return Err("strings"),
    };
    // clap's defaults are static. They are few, and read once.
    Ok(vec![text.leak()])
}

/// Without a picture of the place.
fn in_one_line(error: &toml::de::Error) -> String {
    let shown = error.to_string();
    format!(
        "{}: {}",
        shown.lines().next().unwrap_or_default(),
        error.message()
    )
}

/// Gives the option of this name its default.
fn set_default(command: Command, name: &str, values: &[&'static str]) -> Command {
    let set = |arg: clap::Arg| match arg.get_long() {
        Some(long) if long == name => arg.default_values(values.iter().copied()),
        _ => arg,
    };
    command
        .mut_args(set)
        .mut_subcommands(|command| set_default(command, name, values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    /// What `landfall install r.lab/i /dev/vda …` takes for an option.
    fn taken(file: &str, typed: &[&str], option: &str) -> Vec<String> {
        let command = with_defaults(Cli::command(), file).unwrap();
        let words = ["landfall", "install", "r.lab/i", "/dev/vda"].iter().chain(typed);
        let matches = command.try_get_matches_from(words).unwrap();
        let install = matches.subcommand().unwrap().1;
        let raw = install.get_raw(option).into_iter().flatten();
        raw.map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_key_is_a_default() {
        for (file, typed, option, expected) in [
            ("", &[][..], "retries", &["5"][..]),
            ("retries = 9", &[], "retries", &["9"]),
            ("retries = '9'", &["--retries=1"], "retries", &["1"]),
            ("tls-verify = false", &[], "tls_verify", &["false"]),
            ("generic-image = true", &[], "generic_image", &["true"]),
            (
                "mirror = ['a.lab', 'b.lab/c']",
                &[],
                "mirrors",
                &["a.lab", "b.lab/c"],
            ),
            ("mirror = 'a.lab'", &[], "mirrors", &["a.lab"]),
            (
                "mirror = ['a.lab', 'b.lab/c']",
                &["--mirror=c.lab"],
                "mirrors",
                &["c.lab"],
            ),
            ("mirror = []", &[], "mirrors", &[]),
            ("progress = 'plain'", &[], "progress", &["plain"]),
        ] {
            assert_eq!(taken(file, typed, option), expected, "{file}");
        }
    }

    #[test]
    fn what_a_file_may_not_say() {
        for (file, expected) in [
            ("tls_verify = true", "the key tls_verify is unknown; known are "),
            ("to = 'oci:x'", "the key to is unknown"),
            ("image = 'r.lab/i'", "the key image is unknown"),
            ("wipe = true", "wipe is not for a file: it has to be typed"),
            ("yes = true", "yes is not for a file"),
            ("tls-verify = 'false'", "tls-verify needs true or false"),
            ("generic-image = 1", "generic-image needs true or false"),
            ("ca-cert = true", "ca-cert needs a string or a number"),
            ("ca-cert = ['/ca']", "ca-cert needs a string or a number"),
            ("karg = [['a']]", "karg needs a string or a number"),
            ("[install]", "the key install is unknown"),
            ("retries =", "TOML parse error at line 1"),
        ] {
            let error = with_defaults(Cli::command(), file).unwrap_err();
            assert!(error.starts_with(expected) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn what_must_be_typed_is_an_option() {
        let options = options(&Cli::command());
        assert!(TYPED_ONLY.iter().all(|name| options.contains_key(*name)));
    }
}
