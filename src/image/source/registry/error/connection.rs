//! Why there is no connection, and what to do about it.

use std::fmt;

/// Why there is no connection.
#[derive(Debug)]
pub enum Connection {
    Refused,
    NoAddress,
    /// The server speaks plain HTTP where TLS was expected.
    PlainHttp,
    /// The certificate isn't trusted, and why.
    Untrusted(String),
    /// The certificate is trusted, but it's not this server's: which names it has.
    WrongName(String),
    /// The certificate's time is not now.
    WrongTime(String),
    /// Our certificate isn't trusted, or is missing where one is required; in the server's words.
    Unwelcome(String),
    /// It broke in the middle of an answer, in the words of the layers below.
    Broken(String),
    /// Anything else, in the words of the layers below.
    Other(String),
}

impl fmt::Display for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => out.write_str("refuses connections: check that it runs, and its port"),
            Self::NoAddress => out.write_str("has no address: check its name, and this machine's DNS"),
            Self::PlainHttp => {
                out.write_str("speaks plain HTTP, not TLS: allow that with --tls-verify=false")
            }
            Self::Untrusted(why) => write!(
                out,
                "has a certificate that is not trusted ({why}): give its CA certificate with --ca-cert, or \
                 turn the check off with --tls-verify=false"
            ),
            Self::WrongName(why) => write!(
                out,
                "has a certificate for another name ({why}): use a name that is in it, or turn the check off \
                 with --tls-verify=false"
            ),
            Self::WrongTime(why) => write!(out, "has a certificate that {why}"),
            Self::Unwelcome(why) => write!(
                out,
                "wants a client certificate that it knows ({why}): put it into certs.d/HOST:PORT, as *.cert with its *.key"
            ),
            Self::Broken(why) => {
                write!(out, "broke off ({why}): check the network between here and there")
            }
            Self::Other(why) => write!(out, "cannot be reached: {why}"),
        }
    }
}
