//! Why TLS fails, told so that somebody can do something about it.

use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

use crate::tls::der;

/// Why a TLS connection could not be made, or cannot go on. The [source](StdError::source) of an
/// [`Error`](crate::Error), where it is the reason.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Problem {
    /// The server's certificate is not believed.
    Certificate(CertificateProblem),
    /// The server ended the connection with an alert (RFC 8446 §6). One about certificates is about
    /// the client's.
    Alert(AlertDescription),
    /// What the peer sends is not TLS.
    NotTls,
    /// The server chose this protocol by ALPN, which is not `http/1.1`.
    Protocol(Vec<u8>),
    /// There is no root certificate to believe a server by; why none was found, where that is
    /// known.
    NoRoots(String),
    /// The host is neither a DNS name nor an IP address that could stand in a certificate.
    Name(String),
    /// A message passes what there is room for.
    TooLong {
        /// Bytes of the engine's read buffer.
        limit: usize,
    },
    /// Something else, in the words of rustls.
    Rustls(rustls::Error),
}

/// What is wrong with a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// It was valid until then.
    Expired {
        /// The last moment, where it is known.
        not_after: Option<SystemTime>,
    },
    /// It will be valid from then on; or this machine's clock is slow.
    NotYetValid {
        /// The first moment, where it is known.
        not_before: Option<SystemTime>,
    },
    /// It belongs to another server.
    WrongName {
        /// The host that was asked for.
        host: String,
        /// The names and addresses in it.
        valid_for: Vec<String>,
    },
    /// It is its own issuer, and not among the roots.
    SelfSigned,
    /// It does not lead to a root: that root is not believed here, or the server does not send the
    /// certificates between.
    UnknownIssuer,
    /// A signature is not that of the key that should have made it.
    BadSignature,
    /// A signature is made by an algorithm that is not supported, or too weak.
    UnsupportedSignature,
    /// The same, where the algorithm is known.
    UnsupportedAlgorithm {
        /// Its name, such as `RSA with SHA-1`, or its object identifier.
        algorithm: String,
    },
    /// A signature is made by an RSA key that is too short to be safe, or longer than is supported:
    /// 2,048 to 8,192 bits are.
    KeyLength {
        /// How long it is.
        bits: usize,
    },
    /// It is that of an authority, which signs others, and must not stand for a server (RFC 5280
    /// §4.2.1.9). An authority's that is itself among the roots, byte for byte, may.
    AuthorityAsServer,
    /// It is not meant for servers (RFC 5280 §4.2.1.12).
    WrongPurpose,
    /// It has been revoked.
    Revoked,
    /// It cannot be read.
    Malformed,
    /// Something else, in the words of rustls.
    Other(String),
}

impl StdError for Problem {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Problem::Certificate(problem) => Some(problem),
            Problem::Rustls(error) => Some(error),
            Problem::Alert(_)
            | Problem::NotTls
            | Problem::Protocol(_)
            | Problem::NoRoots(_)
            | Problem::Name(_)
            | Problem::TooLong { .. } => None,
        }
    }
}

/// The whole reason, certificate and all: it is short, and who reads only one line should read
/// this.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Certificate(problem) => problem.fmt(f),
            Problem::Alert(alert) => {
                f.write_str("server sent the alert ")?;
                write_alert(f, *alert)
            }
            Problem::NotTls => f.write_str("peer does not speak TLS"),
            Problem::Protocol(name) => write!(
                f,
                "server chose the protocol {} instead of http/1.1",
                name.escape_ascii()
            ),
            Problem::NoRoots(why) if why.is_empty() => f.write_str("no root certificates found"),
            Problem::NoRoots(why) => write!(f, "no root certificates found: {why}"),
            Problem::Name(host) => write!(f, "no certificate can be made out to \"{host}\""),
            Problem::TooLong { limit } => {
                write!(
                    f,
                    "TLS message longer than the read buffer of {limit} bytes"
                )
            }
            Problem::Rustls(error) => error.fmt(f),
        }
    }
}

impl StdError for CertificateProblem {}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { not_after: None } => f.write_str("certificate has expired"),
            Self::Expired {
                not_after: Some(at),
            } => write!(f, "certificate has expired on {}", Utc(*at)),
            Self::NotYetValid { not_before: None } => f.write_str("certificate is not yet valid"),
            Self::NotYetValid {
                not_before: Some(at),
            } => write!(f, "certificate is not valid before {}", Utc(*at)),
            Self::WrongName { host, valid_for } if valid_for.is_empty() => {
                write!(
                    f,
                    "certificate is not for {host}: it names no host, since a common name is not looked at; \
                     names have to be among its subject alternative names"
                )
            }
            Self::WrongName { host, valid_for } if is_address_as_name(host, valid_for) => write!(
                f,
                "certificate is not for {host}: it lists that as a DNS name, but an IP address has to be \
                 listed as one (subjectAltName IP:{host} instead of DNS:{host})"
            ),
            Self::WrongName { host, valid_for } => write!(
                f,
                "certificate is not for {host}: it is for {}",
                Listed(valid_for)
            ),
            Self::SelfSigned => f.write_str("certificate is self-signed"),
            Self::UnknownIssuer => {
                f.write_str("certificate has no known issuer: it leads to no root believed here")
            }
            Self::BadSignature => f.write_str("certificate or handshake has a bad signature"),
            Self::UnsupportedSignature => {
                f.write_str("certificate or handshake is signed by an unsupported algorithm")
            }
            Self::UnsupportedAlgorithm { algorithm } => write!(
                f,
                "certificate or handshake is signed by an unsupported algorithm: {algorithm}"
            ),
            Self::KeyLength { bits } if *bits < 2048 => write!(
                f,
                "certificate or handshake is signed by an RSA key of {bits} bits, which is too short: \
                 2048 are the least"
            ),
            Self::KeyLength { bits } => write!(
                f,
                "certificate or handshake is signed by an RSA key of {bits} bits, which is too long: \
                 8192 are the most"
            ),
            Self::AuthorityAsServer => f.write_str(
                "certificate is an authority's, which may sign a server's but not be one",
            ),
            Self::WrongPurpose => f.write_str("certificate is not meant for servers"),
            Self::Revoked => f.write_str("certificate has been revoked"),
            Self::Malformed => f.write_str("certificate cannot be read"),
            Self::Other(why) => write!(f, "certificate is refused: {why}"),
        }
    }
}

impl From<rustls::Error> for Problem {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(why) => Problem::Certificate(why.into()),
            rustls::Error::AlertReceived(alert) => Problem::Alert(alert),
            other => Problem::Rustls(other),
        }
    }
}

impl From<CertificateError> for CertificateProblem {
    fn from(error: CertificateError) -> Self {
        use CertificateError as E;
        match error {
            E::Expired => Self::Expired { not_after: None },
            E::ExpiredContext { not_after, .. } => Self::Expired {
                not_after: system_time(not_after),
            },
            E::NotValidYet => Self::NotYetValid { not_before: None },
            E::NotValidYetContext { not_before, .. } => Self::NotYetValid {
                not_before: system_time(not_before),
            },
            E::NotValidForNameContext {
                expected,
                presented,
            } => Self::WrongName {
                host: expected.to_str().into_owned(),
                valid_for: presented.iter().map(|name| bare_name(name)).collect(),
            },
            E::UnknownIssuer => Self::UnknownIssuer,
            E::BadSignature => Self::BadSignature,
            E::UnsupportedSignatureAlgorithmContext {
                signature_algorithm_id,
                ..
            } => match der::algorithm_name(&signature_algorithm_id) {
                Some(algorithm) => Self::UnsupportedAlgorithm { algorithm },
                None => Self::UnsupportedSignature,
            },
            E::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id,
                public_key_algorithm_id,
            } => {
                let signature = der::algorithm_name(&signature_algorithm_id);
                match (signature, der::algorithm_name(&public_key_algorithm_id)) {
                    (Some(signature), Some(key)) => Self::UnsupportedAlgorithm {
                        algorithm: format!("{signature} with a key of {key}"),
                    },
                    _ => Self::UnsupportedSignature,
                }
            }
            E::InvalidPurpose | E::InvalidPurposeContext { .. } => Self::WrongPurpose,
            E::Revoked => Self::Revoked,
            E::BadEncoding => Self::Malformed,
            ref other if is_authority_as_server(other) => Self::AuthorityAsServer,
            E::Other(other) => match (other.0.downcast_ref(), other.0.downcast_ref()) {
                (Some(Judged(problem)), _) => problem.clone(),
                (_, Some(webpki::Error::UnsupportedCertVersion)) => {
                    Self::Other("its X.509 version is not 3, so it names no host".to_owned())
                }
                _ => Self::Other(other.0.to_string()),
            },
            // A set that rustls adds to.
            other => Self::Other(other.to_string()),
        }
    }
}

/// Whether an address is wanted, and is there under the wrong kind of name: as an address it would
/// have been accepted.
fn is_address_as_name(host: &str, valid_for: &[String]) -> bool {
    let Ok(wanted) = host.parse::<IpAddr>() else {
        return false;
    };
    valid_for.iter().any(|name| name.parse() == Ok(wanted))
}

/// What our verifier has found, on its way through rustls.
#[derive(Debug)]
pub(super) struct Judged(pub(super) CertificateProblem);

impl StdError for Judged {}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a certificate is refused for being an authority's; rustls has no name for that.
pub(super) fn is_authority_as_server(error: &CertificateError) -> bool {
    let CertificateError::Other(other) = error else {
        return false;
    };
    other.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
}

fn system_time(time: UnixTime) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()))
}

/// `a.example` of `DnsName("a.example")`, `10.0.0.1` of `IpAddress(10.0.0.1)`, as webpki puts them;
/// other kinds of names as they come.
fn bare_name(name: &str) -> String {
    let inner = |open, close| name.strip_prefix(open)?.strip_suffix(close);
    inner("DnsName(\"", "\")")
        .or_else(|| inner("IpAddress(", ")"))
        .unwrap_or(name)
        .to_owned()
}

/// The alert by its name in the RFC: `HandshakeFailure` is `handshake_failure`.
fn write_alert(f: &mut fmt::Formatter<'_>, alert: AlertDescription) -> fmt::Result {
    // Where rustls spells it otherwise (RFC 6066 §9, RFC 8446 §6, RFC 9849 §5).
    match alert {
        AlertDescription::UnrecognisedName => return f.write_str("unrecognized_name"),
        AlertDescription::UnknownPSKIdentity => return f.write_str("unknown_psk_identity"),
        AlertDescription::EncryptedClientHelloRequired => return f.write_str("ech_required"),
        // A set that rustls adds to.
        _ => {}
    }
    let Some(name) = alert.as_str() else {
        return write!(f, "{}", u8::from(alert));
    };
    let mut after_lower = false;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && after_lower {
            f.write_str("_")?;
        }
        after_lower = letter.is_ascii_lowercase();
        write!(f, "{}", letter.to_ascii_lowercase())?;
    }
    Ok(())
}

/// The first few of many: a certificate may have a hundred names.
struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        for (i, name) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}", name.escape_default())?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// `2026-11-18 10:00:00 UTC`.
struct Utc(SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = match self.0.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_secs(),
            Err(_) => return f.write_str("a day before 1970"),
        };
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC"
        )
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. A year begins
/// in March here, so that the leap day is its last: `5 * m + 2` over 153 days then has the lengths
/// of the months.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    // From 0000-03-01.
    let days = days + 719_468;
    let era = days / DAYS_IN_400_YEARS;
    let day_of_era = days % DAYS_IN_400_YEARS;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_582_934_400, "2020-02-29 00:00:00 UTC"),
            (1_583_020_799, "2020-02-29 23:59:59 UTC"),
            (1_583_020_800, "2020-03-01 00:00:00 UTC"),
            (1_795_264_496, "2026-11-21 12:34:56 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (253_402_300_799, "9999-12-31 23:59:59 UTC"),
        ] {
            let at = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(Utc(at).to_string(), expected);
        }
    }

    #[test]
    fn alerts_have_their_names_of_the_rfc() {
        for (alert, expected) in [
            (AlertDescription::HandshakeFailure, "handshake_failure"),
            (AlertDescription::UnknownCA, "unknown_ca"),
            (
                AlertDescription::CertificateRequired,
                "certificate_required",
            ),
            (AlertDescription::UnrecognisedName, "unrecognized_name"),
            (AlertDescription::UnknownPSKIdentity, "unknown_psk_identity"),
            (
                AlertDescription::EncryptedClientHelloRequired,
                "ech_required",
            ),
            (AlertDescription::Unknown(99), "99"),
        ] {
            let text = Problem::Alert(alert).to_string();
            assert_eq!(text, format!("server sent the alert {expected}"));
        }
    }
}
