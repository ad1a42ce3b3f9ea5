//! What TLS failed at, and what to do about it: whose certificate it is, and whose clock.

use std::error::Error as StdError;
use std::io;
use std::time::{Duration, SystemTime};

use rustls::CertificateError;

use super::clean::clean;
use super::connection::Connection;

/// 2026-01-01: this program is younger than that; a clock that says otherwise is wrong.
pub const EARLIEST_NOW: Duration = Duration::from_secs(1_767_225_600);

/// The TLS error that `error` is or wraps. An `io::Error` hides what it wraps from `source`.
pub fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut error = error;
    loop {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        error = error.downcast_ref::<io::Error>()?.get_ref()?;
    }
}

pub fn tls_failure(error: &rustls::Error, now: SystemTime) -> Connection {
    use CertificateError as C;
    match error {
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => Connection::PlainHttp,
        rustls::Error::InvalidCertificate(
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
        ) => Connection::WrongTime(wrong_time(error, now)),
        rustls::Error::InvalidCertificate(C::UnknownIssuer) => {
            Connection::Untrusted("no known CA signed it".into())
        }
        rustls::Error::InvalidCertificate(why @ (C::NotValidForName | C::NotValidForNameContext { .. })) => {
            Connection::WrongName(clean(&why.to_string()))
        }
        rustls::Error::InvalidCertificate(C::Other(why)) if why.to_string().contains("CaUsedAsEndEntity") => {
            Connection::Untrusted("it is a CA certificate; a server needs one that the CA has signed".into())
        }
        rustls::Error::InvalidCertificate(why) => Connection::Untrusted(clean(&why.to_string())),
        rustls::Error::AlertReceived(alert) if is_of_client_certificate(*alert) => {
            Connection::Unwelcome(format!("{alert:?}"))
        }
        other => Connection::Other(clean(&other.to_string())),
    }
}

/// Whether a server says with this that it misses a client certificate, or doesn't like ours (RFC 8446,
/// section 6.2).
fn is_of_client_certificate(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as A;
    matches!(
        alert,
        A::CertificateRequired
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
    )
}

/// Why a certificate's time is not now: the certificate's fault, or our clock's.
fn wrong_time(error: &rustls::Error, now: SystemTime) -> String {
    let clock = httpdate::fmt_http_date(now);
    if now < SystemTime::UNIX_EPOCH + EARLIEST_NOW {
        return format!("is not valid at {clock}, the time of this machine's clock, which is wrong: set it");
    }
    use CertificateError::{Expired, ExpiredContext};
    let what = match error {
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => "has expired",
        _ => "is not valid yet",
    };
    format!(
        "{what} (this machine's clock says {clock}): set the clock if it's wrong, else renew the certificate"
    )
}
