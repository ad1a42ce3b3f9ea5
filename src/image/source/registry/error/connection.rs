//! Why there is no connection, and what to do about it.

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Connection {
    #[error("refuses connections: check that it runs, and its port")]
    Refused,
    #[error("has no address: check its name, and this machine's DNS")]
    NoAddress,
    #[error("speaks plain HTTP, not TLS: allow that with --tls-verify=false")]
    PlainHttp,
    #[error(
        "has a certificate that is not trusted ({0}): give its CA certificate with --ca-cert, or turn the \
         check off with --tls-verify=false"
    )]
    Untrusted(String),
    /// The certificate is trusted, but it's not this server's: which names it has.
    #[error(
        "has a certificate for another name ({0}): use a name that is in it, or turn the check off with \
         --tls-verify=false"
    )]
    WrongName(String),
    #[error("has a certificate that {0}")]
    WrongTime(String),
    /// Our certificate isn't trusted, or is missing where one is required; in the server's words.
    #[error(
        "wants a client certificate that it knows ({0}): put it into certs.d/HOST:PORT, as *.cert with its \
         *.key"
    )]
    Unwelcome(String),
    /// It broke in the middle of an answer, in the words of the layers below.
    #[error("broke off ({0}): check the network between here and there")]
    Broken(String),
    /// Anything else, in the words of the layers below.
    #[error("cannot be reached: {0}")]
    Other(String),
}
