//! Verifies server certificates as rustls does, with two differences:
//!
//! - A certificate that is itself one of the roots, byte for byte, is trusted: it needs no chain,
//!   and may be an authority's.
//! - A refusal gives a more precise reason: a certificate issued by its own subject is reported
//!   as self-signed rather than as having an unknown issuer, and a signature made by a key of
//!   unsupported length is reported as that rather than as a bad signature.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, VerifierBuilderError};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use webpki::EndEntityCert;

use crate::tls::der::{self, Certificate};
use crate::tls::problem::{CertificateProblem, Finding, Problem, is_authority_as_server};
use crate::tls::roots::Roots;

#[derive(Debug)]
pub(super) struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    roots: Roots,
}

impl Verifier {
    /// # Errors
    /// [`Problem::NoRoots`] where `roots` is empty.
    pub(super) fn new(roots: Roots, provider: Arc<CryptoProvider>) -> Result<Self, Problem> {
        let webpki = WebPkiServerVerifier::builder_with_provider(roots.anchors.clone(), provider)
            .build()
            .map_err(|error| match error {
                VerifierBuilderError::NoRootAnchors => Problem::NoRoots(String::new()),
                other => Problem::Rustls(Error::General(other.to_string())),
            })?;
        Ok(Self { webpki, roots })
    }

    /// As [`verify_server_cert`](ServerCertVerifier::verify_server_cert), but for a certificate
    /// that is itself a root. Who signed it is irrelevant, and so are the certificates sent with
    /// it.
    fn verify_root(
        &self,
        certificate: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .webpki
            .verify_server_cert(certificate, &[], server_name, &[], now);
        let why = match verified {
            Err(Error::InvalidCertificate(why)) => why,
            other => return other,
        };
        // webpki checks the dates before any of these. It checks the purposes only after it has
        // checked whether the certificate is an authority's.
        let concerns_its_issuer = match &why {
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => true,
            other => is_authority_as_server(other),
        };
        if !concerns_its_issuer {
            return Err(why.into());
        }
        if !Certificate::read(certificate).is_some_and(|read| read.may_be_server()) {
            return Err(CertificateError::InvalidPurpose.into());
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    /// Returns the reason for which a chain was refused with `why`, if more can be said than rustls
    /// does.
    fn explain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        why: &CertificateError,
    ) -> Option<CertificateProblem> {
        if self.is_self_signed(end_entity, why) {
            return Some(CertificateProblem::SelfSigned);
        }
        if *why != CertificateError::BadSignature {
            return None;
        }
        let chain = std::iter::once(end_entity).chain(intermediates);
        let chain: Vec<_> = chain.filter_map(|der| Certificate::read(der)).collect();
        let anchors = self.roots.anchors.roots.iter();
        let anchors = anchors.map(|root| (&*root.subject, &*root.subject_public_key_info));
        let sent = chain.iter().map(|read| (read.subject(), read.key()));
        let issuers: Vec<_> = sent.chain(anchors).collect();
        chain.iter().find_map(|read| {
            let mut issuers = issuers.iter().filter(|(name, _)| *name == read.issuer());
            issuers.find_map(|(_, key)| unusable_length(key))
        })
    }

    /// Returns the reason for which a handshake signature was refused: a more precise one than
    /// `error` if there is one.
    fn explain_signature(certificate: &CertificateDer<'_>, error: Error) -> Error {
        let bad = Error::InvalidCertificate(CertificateError::BadSignature);
        let read = Certificate::read(certificate).filter(|_| error == bad);
        match read.and_then(|read| unusable_length(read.key())) {
            Some(problem) => judged(problem),
            None => error,
        }
    }

    /// Returns whether a certificate that was refused for `why` is self-signed.
    fn is_self_signed(&self, certificate: &CertificateDer<'_>, why: &CertificateError) -> bool {
        let Ok(parsed) = EndEntityCert::try_from(certificate) else {
            return false;
        };
        let subject = parsed.subject();
        let is_own_issuer = subject == parsed.issuer();
        match why {
            CertificateError::UnknownIssuer => is_own_issuer,
            // Tools mark self-signed certificates as authorities. If it is not one of the roots,
            // self-signed is the reason to report.
            other if is_authority_as_server(other) => {
                let is_root = |root: &rustls::pki_types::TrustAnchor<'_>| *root.subject == *subject;
                is_own_issuer && !self.roots.anchors.roots.iter().any(is_root)
            }
            _ => false,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.roots.contains(end_entity) {
            return self.verify_root(end_entity, server_name, now);
        }
        let verified = self.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        verified.map_err(|error| match &error {
            // With a reason of our own, the server gets the alert certificate_unknown instead of
            // unknown_ca, which makes no difference to it.
            Error::InvalidCertificate(why) => self
                .explain(end_entity, intermediates, why)
                .map_or(error, judged),
            _ => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki
            .verify_tls12_signature(message, certificate, signature)
            .map_err(|error| Self::explain_signature(certificate, error))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki
            .verify_tls13_signature(message, certificate, signature)
            .map_err(|error| Self::explain_signature(certificate, error))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.webpki.root_hint_subjects()
    }
}

/// The lengths in bits of RSA keys that ring can verify signatures of.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Returns a problem if the key has a length for which no signature is accepted.
fn unusable_length(key: &[u8]) -> Option<CertificateProblem> {
    let bits = der::rsa_bits(key).filter(|bits| !RSA_BITS.contains(bits))?;
    Some(CertificateProblem::KeyLength { bits })
}

/// Wraps a finding of our own so that it passes through rustls.
fn judged(problem: CertificateProblem) -> Error {
    let problem = OtherError(Arc::new(Finding(problem)));
    Error::InvalidCertificate(CertificateError::Other(problem))
}
