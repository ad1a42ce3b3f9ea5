//! Credentials, which are wiped from memory when dropped and never shown.

use std::fmt;

use zeroize::Zeroizing;

/// What proves who we are. Wiped from memory when dropped; never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Password {
        user: String,
        password: Zeroizing<String>,
    },
    /// A token that a token server exchanges for others.
    IdentityToken(Zeroizing<String>),
    /// A token that the registry itself takes.
    Bearer(Zeroizing<String>),
}

impl Credentials {
    /// From `USER:PASSWORD`.
    pub fn from_pair(text: &str) -> Option<Self> {
        let (user, password) = text.split_once(':')?;
        Some(Self::Password {
            user: user.into(),
            // Docker once padded passwords with NULs.
            password: Zeroizing::new(password.trim_matches('\0').into()),
        })
    }

    fn described(&self) -> String {
        match self {
            Self::Password { user, .. } => format!("the credentials of user {user:?}"),
            Self::IdentityToken(_) => "the identity token".into(),
            Self::Bearer(_) => "the token".into(),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.described())
    }
}

/// Credentials, and where they come from.
#[derive(Clone, Debug)]
pub struct Known {
    pub credentials: Credentials,
    /// For messages: `the credentials of user "bob" (reg.lab in /root/auth.json)`.
    pub described: String,
}

impl Known {
    /// `origin` says where they are.
    pub fn new(credentials: Credentials, origin: &str) -> Self {
        let described = format!("{} ({origin})", credentials.described());
        Self {
            credentials,
            described,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        for credentials in [
            Credentials::from_pair("user:s3cret").unwrap(),
            Credentials::IdentityToken(Zeroizing::new("s3cret".into())),
            Credentials::Bearer(Zeroizing::new("s3cret".into())),
        ] {
            assert!(!format!("{:?}", Known::new(credentials, "x")).contains("s3cret"));
        }
    }
}
