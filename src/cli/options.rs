//! The options, read off their one definition, for the other places where they can be given: the kernel
//! command line and the configuration file.

use std::any::TypeId;
use std::collections::BTreeMap;

use clap::{Arg, ArgAction, Command};

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing: it is there or not.
    Nothing,
    /// `true` or `false`.
    Bool,
    /// Some other value.
    Value,
    /// A value each time that it is given.
    Values,
}

impl Takes {
    fn of(arg: &Arg) -> Option<Self> {
        match arg.get_action() {
            ArgAction::SetTrue => Some(Self::Nothing),
            ArgAction::Append => Some(Self::Values),
            ArgAction::Set if arg.get_value_parser().type_id() == TypeId::of::<bool>() => Some(Self::Bool),
            ArgAction::Set => Some(Self::Value),
            _ => None,
        }
    }
}

/// What the options of `command` and of those below it take, by their long names. (One that can't be left out
/// is no option.)
pub fn options(command: &Command) -> BTreeMap<String, Takes> {
    let optional = command.get_arguments().filter(|arg| !arg.is_required_set());
    let own = optional.filter_map(|arg| Some((arg.get_long()?.to_owned(), Takes::of(arg)?)));
    own.chain(command.get_subcommands().flat_map(options)).collect()
}
