//! How the plain types of other rooms are read from a command line, without their knowing of it.

/// Has clap read `$plain` from these arguments, field by field.
macro_rules! arguments {
    ($(#[$meta:meta])* $plain:path { $($(#[$arg:meta])* $field:ident: $kind:ty,)* }) => {
        const _: () = {
            #[derive(clap::Args)]
            // Groups have unique names.
            #[group(skip)]
            $(#[$meta])*
            struct Typed {
                $($(#[$arg])* $field: $kind,)*
            }

            impl clap::FromArgMatches for $plain {
                fn from_arg_matches(matches: &clap::ArgMatches) -> clap::error::Result<Self> {
                    let typed = Typed::from_arg_matches(matches)?;
                    Ok(Self { $($field: typed.$field.into(),)* })
                }

                fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> clap::error::Result<()> {
                    *self = Self::from_arg_matches(matches)?;
                    Ok(())
                }
            }

            impl clap::Args for $plain {
                fn augment_args(command: clap::Command) -> clap::Command {
                    Typed::augment_args(command)
                }

                fn augment_args_for_update(command: clap::Command) -> clap::Command {
                    Typed::augment_args_for_update(command)
                }
            }
        };
    };
}

/// Defines the words that the variants of `$plain` are typed as, and what help says of them.
macro_rules! words {
    ($plain:ty { $($variant:ident: $word:expr $(, $help:literal)?;)* }) => {
        impl clap::ValueEnum for $plain {
            fn value_variants<'a>() -> &'a [Self] {
                &[$(Self::$variant),*]
            }

            fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
                Some(match self {
                    $(Self::$variant => clap::builder::PossibleValue::new($word)$(.help($help))?,)*
                })
            }
        }
    };
}

pub(super) use {arguments, words};
