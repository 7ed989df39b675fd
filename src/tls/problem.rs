//! Why TLS fails, described so that the reader can act on it.

use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

use crate::tls::der;

/// Why a TLS connection could not be established, or cannot continue. It is the
/// [source](StdError::source) of the [`Error`](crate::Error) that it caused.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Problem {
    /// The server's certificate was not accepted.
    Certificate(CertificateProblem),
    /// The server ended the connection with an alert (RFC 8446 §6). An alert about certificates
    /// refers to the client's.
    Alert(AlertDescription),
    /// The data that the peer sends is not TLS.
    NotTls,
    /// The server selected this protocol by ALPN instead of `http/1.1`.
    Protocol(Vec<u8>),
    /// There is no root certificate to verify servers with. Holds the reason, or an empty string if
    /// it is not known.
    NoRoots(String),
    /// The host is neither a DNS name nor an IP address, so no certificate can be valid for it.
    Name(String),
    /// A TLS message does not fit the read buffer.
    TooLong {
        /// The size of the engine's read buffer in bytes.
        limit: usize,
    },
    /// Any other error of rustls.
    Rustls(rustls::Error),
}

/// What is wrong with a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// It has expired.
    Expired {
        /// The end of its validity, if known.
        not_after: Option<SystemTime>,
    },
    /// It is not valid yet, or the local clock is slow.
    NotYetValid {
        /// The start of its validity, if known.
        not_before: Option<SystemTime>,
    },
    /// It is valid for other hosts only.
    WrongName {
        /// The host of the request.
        host: String,
        /// The DNS names and IP addresses that the certificate is valid for.
        valid_for: Vec<String>,
    },
    /// It is self-signed and not one of the roots.
    SelfSigned,
    /// Its chain leads to no trusted root: either the root is not trusted here, or the server does
    /// not send the intermediate certificates.
    UnknownIssuer,
    /// A signature does not match the key that should have made it.
    BadSignature,
    /// A signature uses an algorithm that is unsupported or too weak.
    UnsupportedSignature,
    /// As [`UnsupportedSignature`](Self::UnsupportedSignature), where the algorithm is known.
    UnsupportedAlgorithm {
        /// The name of the algorithm, such as `RSA with SHA-1`, or its object identifier.
        algorithm: String,
    },
    /// A signature was made by an RSA key that is too short to be safe, or too long to be
    /// supported. Keys of 2,048 to 8,192 bits are accepted.
    KeyLength {
        /// The length of the key in bits.
        bits: usize,
    },
    /// It is the certificate of an authority, which signs others and must not be used by a server
    /// (RFC 5280 §4.2.1.9). This does not apply if the certificate is itself one of the roots, byte
    /// for byte.
    AuthorityAsServer,
    /// It is not valid for server authentication (RFC 5280 §4.2.1.12).
    WrongPurpose,
    /// It has been revoked.
    Revoked,
    /// It cannot be parsed.
    Malformed,
    /// Any other reason, as described by rustls.
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

/// Writes the whole reason, including that of a certificate. It is short, and a reader who sees
/// only one line should see this one.
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
            Problem::Name(host) => write!(
                f,
                "\"{host}\" is neither a DNS name nor an IP address, so no certificate can be valid for it"
            ),
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
            } => write!(f, "certificate expired on {}", Utc(*at)),
            Self::NotYetValid { not_before: None } => f.write_str("certificate is not yet valid"),
            Self::NotYetValid {
                not_before: Some(at),
            } => write!(f, "certificate is not valid before {}", Utc(*at)),
            Self::WrongName { host, valid_for } if valid_for.is_empty() => {
                write!(
                    f,
                    "certificate is not valid for {host}: it has no subject alternative names, \
                     and its common name is ignored"
                )
            }
            Self::WrongName { host, valid_for } if is_address_as_name(host, valid_for) => write!(
                f,
                "certificate is not valid for {host}: it lists the address as a DNS name instead of an IP \
                 address (use subjectAltName IP:{host} instead of DNS:{host})"
            ),
            Self::WrongName { host, valid_for } => write!(
                f,
                "certificate is not valid for {host}: it is valid for {}",
                Listed(valid_for)
            ),
            Self::SelfSigned => f.write_str("certificate is self-signed"),
            Self::UnknownIssuer => {
                f.write_str("certificate has an unknown issuer: its chain leads to no trusted root")
            }
            Self::BadSignature => f.write_str("certificate or handshake has a bad signature"),
            Self::UnsupportedSignature => {
                f.write_str("certificate or handshake is signed with an unsupported algorithm")
            }
            Self::UnsupportedAlgorithm { algorithm } => write!(
                f,
                "certificate or handshake is signed with an unsupported algorithm: {algorithm}"
            ),
            Self::KeyLength { bits } if *bits < 2048 => write!(
                f,
                "certificate or handshake is signed with an RSA key of {bits} bits, which is too short: \
                 the minimum is 2048"
            ),
            Self::KeyLength { bits } => write!(
                f,
                "certificate or handshake is signed with an RSA key of {bits} bits, which is too long: \
                 the maximum is 8192"
            ),
            Self::AuthorityAsServer => f.write_str(
                "certificate is that of an authority, which may sign server certificates but not serve as one",
            ),
            Self::WrongPurpose => f.write_str("certificate is not valid for server authentication"),
            Self::Revoked => f.write_str("certificate has been revoked"),
            Self::Malformed => f.write_str("certificate cannot be parsed"),
            Self::Other(why) => write!(f, "certificate was refused: {why}"),
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
                        algorithm: format!("{signature} (key: {key})"),
                    },
                    _ => Self::UnsupportedSignature,
                }
            }
            E::InvalidPurpose | E::InvalidPurposeContext { .. } => Self::WrongPurpose,
            E::Revoked => Self::Revoked,
            E::BadEncoding => Self::Malformed,
            ref other if is_authority_as_server(other) => Self::AuthorityAsServer,
            E::Other(other) => match (other.0.downcast_ref(), other.0.downcast_ref()) {
                (Some(Finding(problem)), _) => problem.clone(),
                (_, Some(webpki::Error::UnsupportedCertVersion)) => {
                    Self::Other("its X.509 version is not 3, so it has no host names".to_owned())
                }
                _ => Self::Other(other.0.to_string()),
            },
            // The enum is non-exhaustive: rustls adds variants.
            other => Self::Other(other.to_string()),
        }
    }
}

/// Returns whether the certificate lists the wanted IP address as a DNS name. It would have been
/// accepted as an IP address.
fn is_address_as_name(host: &str, valid_for: &[String]) -> bool {
    let Ok(wanted) = host.parse::<IpAddr>() else {
        return false;
    };
    valid_for.iter().any(|name| name.parse() == Ok(wanted))
}

/// A finding of our own verifier, wrapped to pass through rustls.
#[derive(Debug)]
pub(super) struct Finding(pub(super) CertificateProblem);

impl StdError for Finding {}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns whether a certificate was refused because it is an authority's. rustls has no variant
/// for that.
pub(super) fn is_authority_as_server(error: &CertificateError) -> bool {
    let CertificateError::Other(other) = error else {
        return false;
    };
    other.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
}

fn system_time(time: UnixTime) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()))
}

/// Extracts `a.example` from `DnsName("a.example")` and `10.0.0.1` from `IpAddress(10.0.0.1)`,
/// which is how webpki formats names. Other kinds of names are returned unchanged.
fn bare_name(name: &str) -> String {
    let inner = |open, close| name.strip_prefix(open)?.strip_suffix(close);
    inner("DnsName(\"", "\")")
        .or_else(|| inner("IpAddress(", ")"))
        .unwrap_or(name)
        .to_owned()
}

/// Writes the alert by its name in the RFC: `HandshakeFailure` becomes `handshake_failure`.
fn write_alert(f: &mut fmt::Formatter<'_>, alert: AlertDescription) -> fmt::Result {
    // rustls spells these differently from the RFCs (RFC 6066 §9, RFC 8446 §6, RFC 9849 §5).
    match alert {
        AlertDescription::UnrecognisedName => return f.write_str("unrecognized_name"),
        AlertDescription::UnknownPSKIdentity => return f.write_str("unknown_psk_identity"),
        AlertDescription::EncryptedClientHelloRequired => return f.write_str("ech_required"),
        // The enum is non-exhaustive: rustls adds variants.
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

/// The first few names of a list: a certificate may have a hundred.
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

/// A time, written as `2026-11-18 10:00:00 UTC`.
struct Utc(SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = match self.0.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_secs(),
            Err(_) => return f.write_str("a date before 1970"),
        };
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC"
        )
    }
}

/// Returns the year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// The computation starts years in March, so that the leap day is the last day of a year. The
/// expression `5 * m + 2` over 153 days then yields the lengths of the months.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    // Days since 0000-03-01.
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
