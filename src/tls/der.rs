//! Reads details from a certificate's DER that rustls and webpki do not expose (RFC 5280 §4.1).
//!
//! With one exception, nothing here affects which certificates are trusted. The exception is the
//! purposes of a certificate that is both a root and a server's own: see
//! [`Certificate::may_be_server`]. Anything that cannot be parsed is `None`.

use std::fmt;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// The tag `[n]`, constructed: an explicit tag, or an implicitly tagged sequence.
const fn context(n: u8) -> u8 {
    0xa0 | n
}

/// Object identifiers in their DER encoding.
mod oid {
    pub(super) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
    pub(super) const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];
    pub(super) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
    pub(super) const ANY_EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37, 0];
    pub(super) const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
    pub(super) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    pub(super) const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
    pub(super) const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];

    /// Algorithms and curves that occur in certificates, with their common names.
    pub(super) const NAMES: &[(&[u8], &str)] = &[
        (
            &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 2],
            "RSA with MD2",
        ),
        (
            &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4],
            "RSA with MD5",
        ),
        (
            &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5],
            "RSA with SHA-1",
        ),
        (RSA_PSS, "RSA-PSS"),
        (
            &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11],
            "RSA with SHA-256",
        ),
        (
            &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12],
            "RSA with SHA-384",
        ),
        (
            &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13],
            "RSA with SHA-512",
        ),
        (
            &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 14],
            "RSA with SHA-224",
        ),
        (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1], "ECDSA with SHA-1"),
        (
            &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 1],
            "ECDSA with SHA-224",
        ),
        (
            &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
            "ECDSA with SHA-256",
        ),
        (
            &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3],
            "ECDSA with SHA-384",
        ),
        (
            &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4],
            "ECDSA with SHA-512",
        ),
        (&[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1], "DSA"),
        (&[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 3], "DSA with SHA-1"),
        (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 2], "DSA with SHA-256"),
        (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 17], "ML-DSA-44"),
        (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 18], "ML-DSA-65"),
        (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 19], "ML-DSA-87"),
        (&[0x2b, 0x65, 112], "Ed25519"),
        (&[0x2b, 0x65, 113], "Ed448"),
        (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], "P-256"),
        (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 1], "P-192"),
        (&[0x2b, 0x81, 4, 0, 10], "secp256k1"),
        (&[0x2b, 0x81, 4, 0, 33], "P-224"),
        (&[0x2b, 0x81, 4, 0, 34], "P-384"),
        (&[0x2b, 0x81, 4, 0, 35], "P-521"),
    ];
}

/// An object identifier, displayed by its name if it has one, else as numbers.
#[derive(Clone, Copy, Debug)]
struct Oid<'a>(&'a [u8]);

impl fmt::Display for Oid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((_, name)) = oid::NAMES.iter().find(|(oid, _)| *oid == self.0) {
            return f.write_str(name);
        }
        let mut number: u64 = 0;
        let mut is_first = true;
        for byte in self.0 {
            number = number << 7 | u64::from(byte & 0x7f);
            if byte & 0x80 != 0 {
                continue;
            }
            if is_first {
                let root = (number / 40).min(2);
                write!(f, "{root}.{}", number - 40 * root)?;
                is_first = false;
            } else {
                write!(f, ".{number}")?;
            }
            number = 0;
        }
        Ok(())
    }
}

/// Returns the name of an algorithm, given its `AlgorithmIdentifier` without the outer tag, which
/// is how webpki passes it.
pub(super) fn algorithm_name(identifier: &[u8]) -> Option<String> {
    let mut fields = Fields(identifier);
    let algorithm = fields.take(OBJECT)?;
    // For elliptic curves, the parameters name the curve, which says more than the algorithm does.
    match fields.take(OBJECT).filter(|_| algorithm == oid::EC) {
        Some(curve) => Some(format!("elliptic curve {}", Oid(curve))),
        None => Some(Oid(algorithm).to_string()),
    }
}

/// Returns the length of an RSA key in bits, given its `SubjectPublicKeyInfo` without the outer
/// tag; `None` for other keys.
pub(super) fn rsa_bits(info: &[u8]) -> Option<usize> {
    let mut info = Fields(info);
    let algorithm = Fields(info.take(SEQUENCE)?).take(OBJECT)?;
    if algorithm != oid::RSA && algorithm != oid::RSA_PSS {
        return None;
    }
    let [0, key @ ..] = info.take(BIT_STRING)? else {
        return None;
    };
    let modulus = Fields(Fields(key).take(SEQUENCE)?).take(INTEGER)?;
    let zeros = modulus.iter().take_while(|&&byte| byte == 0).count();
    Some(match modulus[zeros..] {
        [] => 0,
        [first, ref rest @ ..] => rest.len() * 8 + (8 - first.leading_zeros() as usize),
    })
}

/// The parts of a certificate that are needed here.
pub(super) struct Certificate<'a> {
    issuer: &'a [u8],
    subject: &'a [u8],
    key: &'a [u8],
    extensions: &'a [u8],
}

impl<'a> Certificate<'a> {
    pub(super) fn read(der: &'a [u8]) -> Option<Self> {
        let mut tbs = Fields(Fields(Fields(der).take(SEQUENCE)?).take(SEQUENCE)?);
        tbs.take(context(0));
        tbs.take(INTEGER)?;
        tbs.take(SEQUENCE)?;
        let issuer = tbs.take(SEQUENCE)?;
        tbs.take(SEQUENCE)?;
        let subject = tbs.take(SEQUENCE)?;
        let key = tbs.take(SEQUENCE)?;
        // The unique identifiers of X.509 version 2.
        for tag in [0x81, 0x82] {
            tbs.take(tag);
        }
        let extensions = match tbs.take(context(3)) {
            Some(extensions) => Fields(extensions).take(SEQUENCE)?,
            None => &[],
        };
        Some(Self {
            issuer,
            subject,
            key,
            extensions,
        })
    }

    /// Returns the issuer without its outer tag, as do the next two methods for their parts.
    pub(super) fn issuer(&self) -> &'a [u8] {
        self.issuer
    }

    pub(super) fn subject(&self) -> &'a [u8] {
        self.subject
    }

    pub(super) fn key(&self) -> &'a [u8] {
        self.key
    }

    /// Returns whether it names a DNS name or an IP address. Most authorities' certificates name
    /// neither.
    pub(super) fn names_host(&self) -> bool {
        const DNS: u8 = 0x82;
        const IP: u8 = 0x87;
        let names = self.extension(oid::SUBJECT_ALT_NAME);
        let mut names = Fields(names.and_then(|n| Fields(n).take(SEQUENCE)).unwrap_or(&[]));
        std::iter::from_fn(|| names.next()).any(|(tag, _)| matches!(tag, DNS | IP))
    }

    /// Returns whether its key usage and extended key usage (RFC 5280 §4.2.1.3, §4.2.1.12), where
    /// present, permit use by a server. The rules are those of OpenSSL.
    pub(super) fn may_be_server(&self) -> bool {
        self.key_may_be_used().unwrap_or(false) && self.is_for_servers().unwrap_or(false)
    }

    fn key_may_be_used(&self) -> Option<bool> {
        /// digitalSignature, keyEncipherment, keyAgreement: the first bit is the highest.
        const IN_HANDSHAKES: u8 = 0b1010_1000;
        let Some(usage) = self.extension(oid::KEY_USAGE) else {
            return Some(true);
        };
        let [_unused, bits @ ..] = Fields(usage).take(BIT_STRING)? else {
            return None;
        };
        Some(bits.first().is_some_and(|bits| bits & IN_HANDSHAKES != 0))
    }

    fn is_for_servers(&self) -> Option<bool> {
        let Some(purposes) = self.extension(oid::EXTENDED_KEY_USAGE) else {
            return Some(true);
        };
        let mut purposes = Fields(Fields(purposes).take(SEQUENCE)?);
        Some(
            std::iter::from_fn(|| purposes.take(OBJECT)).any(|purpose| purpose == oid::SERVER_AUTH),
        )
    }

    /// Returns the value of the extension with this identifier.
    fn extension(&self, id: &[u8]) -> Option<&'a [u8]> {
        let mut extensions = Fields(self.extensions);
        while let Some(extension) = extensions.take(SEQUENCE) {
            let mut extension = Fields(extension);
            if extension.take(OBJECT)? == id {
                extension.take(BOOLEAN);
                return extension.take(OCTET_STRING);
            }
        }
        None
    }
}

/// The purposes for which OpenSSL's `TRUSTED CERTIFICATE` trusts the certificate in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It may be trusted to identify servers.
    Servers,
    /// It is trusted for other purposes only.
    Others,
}

/// Extracts the certificate from a `TRUSTED CERTIFICATE`: a certificate followed by an optional
/// `X509_CERT_AUX` of OpenSSL.
pub(super) fn split_trusted(der: &[u8]) -> Option<(&[u8], Trust)> {
    let (SEQUENCE, _, settings) = read(der)? else {
        return None;
    };
    let certificate = &der[..der.len() - settings.len()];
    if settings.is_empty() {
        return Some((certificate, Trust::Servers));
    }
    let mut settings = Fields(Fields(settings).take(SEQUENCE)?);
    let names_servers = |list: &[u8]| {
        let mut list = Fields(list);
        std::iter::from_fn(|| list.take(OBJECT))
            .any(|purpose| [oid::SERVER_AUTH, oid::ANY_EXTENDED_KEY_USAGE].contains(&purpose))
    };
    let is_trusted = settings.take(SEQUENCE).is_none_or(names_servers);
    let is_rejected = settings.take(context(0)).is_some_and(names_servers);
    let trust = if is_trusted && !is_rejected {
        Trust::Servers
    } else {
        Trust::Others
    };
    Some((certificate, trust))
}

/// Returns whether `input` is a single DER sequence, as certificates and keys are.
pub(super) fn is_sequence(input: &[u8]) -> bool {
    matches!(read(input), Some((SEQUENCE, _, [])))
}

/// A series of consecutive DER values.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Takes the next value and returns its content, provided that it has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content, rest) = read(self.0)?;
        if found != tag {
            return None;
        }
        self.0 = rest;
        Some(content)
    }

    /// Takes the next value, whatever its tag.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, content, rest) = read(self.0)?;
        self.0 = rest;
        Some((tag, content))
    }
}

/// Returns the tag and the content of the value at the start of `input`, and the bytes after it.
fn read(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, first, rest @ ..] = input else {
        return None;
    };
    let (len, rest) = match *first {
        short @ ..0x80 => (usize::from(short), rest),
        long => {
            let count = usize::from(long & 0x7f);
            if count == 0 || count > 4 || rest.len() < count {
                return None;
            }
            let (len, rest) = rest.split_at(count);
            let len = len
                .iter()
                .fold(0usize, |len, byte| len << 8 | usize::from(*byte));
            (len, rest)
        }
    };
    (len <= rest.len()).then(|| (*tag, &rest[..len], &rest[len..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_names_or_numbers() {
        for (der, expected) in [
            (&[0x2b, 0x65, 113][..], "Ed448"),
            (
                &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5],
                "RSA with SHA-1",
            ),
            (
                &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 9, 9],
                "1.2.840.113549.9.9",
            ),
            (&[0x88, 0x37, 3], "2.999.3"),
        ] {
            assert_eq!(Oid(der).to_string(), expected);
        }
    }

    #[test]
    fn what_is_cut_short_is_nothing() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let whole = Certificate::read(&der).unwrap();
        assert!(whole.names_host() && whole.may_be_server());
        for len in 0..der.len() {
            assert!(Certificate::read(&der[..len]).is_none());
        }
        // Nothing panics if a byte is corrupted, either.
        for at in 0..der.len() {
            for byte in [0, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                let mut other = der.clone();
                other[at] = byte;
                if let Some(read) = Certificate::read(&other) {
                    let _ = (read.names_host(), read.may_be_server());
                    let _ = rsa_bits(read.key());
                }
            }
        }
    }
}
