//! Where a relay answers: on loopback, where with `--network host` anybody on this machine may ask, but below
//! a path that nobody guesses. Who may read the drop-in knows it: the image, and root.

use std::io;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result, anyhow};
use ring::rand::{SystemRandom, generate};

/// Nobody guesses so many bytes.
const SECRET_BYTES: usize = 16;

/// A socket that listens, and the path below which it answers.
pub struct Place {
    listener: TcpListener,
    address: SocketAddr,
    secret: String,
}

impl Place {
    /// A new place behind `listener`, which may live in another network namespace.
    pub fn new(listener: TcpListener) -> Result<Self> {
        let address = listener.local_addr().context("getsockname")?;
        let secret = generate::<[u8; SECRET_BYTES]>(&SystemRandom::new());
        let secret = secret.map_err(|_| anyhow!("the kernel gives no random numbers"))?;
        Ok(Self {
            listener,
            address,
            secret: secret.expose().iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// The address alone.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What container tools are to take for the image's repository: `ADDRESS/SECRET`. Its own name stays out
    /// of it: with the secret it could be longer than a name may be.
    pub fn location(&self) -> String {
        format!("{}/{}", self.address, self.secret)
    }

    pub(super) fn listen(&self) -> io::Result<TcpListener> {
        self.listener.try_clone()
    }

    pub(super) fn door(&self) -> Door {
        Door(self.secret.clone())
    }
}

/// Lets in who knows the secret.
pub struct Door(String);

impl Door {
    /// What `path` asks for behind the door. How long the answer takes says nothing of a wrong secret.
    pub fn open<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (secret, behind) = path.split_once('/')?;
        let pairs = secret.bytes().zip(self.0.bytes());
        let difference = pairs.fold(0, |difference, (given, right)| difference | (given ^ right));
        (secret.len() == self.0.len() && difference == 0).then_some(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_places_have_the_same_secret() {
        let place = || Place::new(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let (one, other) = (place(), place());
        assert_eq!(one.secret.len(), 32);
        assert_ne!(one.secret, other.secret);
        assert_eq!(one.location(), format!("{}/{}", one.address(), one.secret));
    }

    #[test]
    fn only_the_whole_secret_opens() {
        let door = Door("0123abcd".into());
        assert_eq!(door.open("0123abcd/blobs/x"), Some("blobs/x"));
        for path in [
            "",
            "/",
            "0123abcd",
            "0123abc/blobs",
            "0123abcde/blobs",
            "1123abcd/blobs",
            "os/x/blobs",
        ] {
            assert_eq!(door.open(path), None, "{path}");
        }
    }
}
