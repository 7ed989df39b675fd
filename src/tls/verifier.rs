//! Judges server certificates as rustls does, and tells two cases more: who is its own issuer is self-signed rather than of an
//! unknown issuer.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::VerifierBuilderError;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use webpki::EndEntityCert;

use crate::tls::problem::{Problem, SelfSigned, is_authority_as_server};

#[derive(Debug)]
pub(super) struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
}

impl Verifier {
    /// # Errors
    /// [`Problem::NoRoots`] where `roots` is empty.
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Problem> {
        let webpki = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider)
            .build()
            .map_err(|error| match error {
                VerifierBuilderError::NoRootAnchors => Problem::NoRoots(String::new()),
                other => Problem::Rustls(Error::General(other.to_string())),
            })?;
        Ok(Self { webpki, roots })
    }

    /// Whether a certificate that was refused for `why` is one that somebody made without asking anybody.
    fn is_self_signed(&self, certificate: &CertificateDer<'_>, why: &CertificateError) -> bool {
        let Ok(parsed) = EndEntityCert::try_from(certificate) else {
            return false;
        };
        let subject = parsed.subject();
        let is_own_issuer = subject == parsed.issuer();
        match why {
            CertificateError::UnknownIssuer => is_own_issuer,
            // Tools make self-signed certificates as authorities. Believed as a root, that is what there is to be said of it.
            other if is_authority_as_server(other) => {
                let is_root = |root: &rustls::pki_types::TrustAnchor<'_>| *root.subject == *subject;
                is_own_issuer && !self.roots.roots.iter().any(is_root)
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
        self.webpki
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| match error {
                // The server is told certificate_unknown instead of unknown_ca: it makes no difference to it.
                Error::InvalidCertificate(why) if self.is_self_signed(end_entity, &why) => {
                    let problem = OtherError(Arc::new(SelfSigned));
                    Error::InvalidCertificate(CertificateError::Other(problem))
                }
                other => other,
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
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.webpki.root_hint_subjects()
    }
}
