//! TLS and passwords for connections that intakes make.
#![forbid(unsafe_code)]

use crate::config::intake::Access;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::path::Path;
use std::sync::Arc;

/// Where Debian, Fedora and Alpine keep the certificates that a host believes.
const SYSTEM: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The password, if there is a file with one.
pub(super) fn password(access: &Access) -> Result<Option<String>, String> {
    let Some(path) = &access.password_file else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(text.lines().next().map(str::to_owned))
}

/// What a client of ours believes, and shows.
pub(super) fn client(access: &Access) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let system = || SYSTEM.iter().map(Path::new).find(|p| p.exists());
    let from = access.ca.as_deref().or_else(system).ok_or("no certificates to believe: set ca")?;
    let believed = certificates(from)?;
    roots.add_parsable_certificates(believed.iter().cloned());
    if roots.is_empty() {
        return Err(format!("{} holds no certificate that can be believed", from.display()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let chain = chain.build().map_err(|e| e.to_string())?;
    // Only what was named for this one server counts by itself.
    let named = if access.ca.is_some() { believed } else { vec![] };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Named { chain, named }));
    let Some((certificate, key)) = &access.certificate else { return Ok(builder.with_no_client_auth()) };
    let own = PrivateKeyDer::from_pem_file(key).map_err(|e| format!("{}: {e}", key.display()))?;
    builder
        .with_client_auth_cert(certificates(certificate)?, own)
        .map_err(|e| format!("{}: {e}", certificate.display()))
}

/// A certificate that leads to one that is believed; or that is itself in the file that was named: plants' brokers have
/// certificates that stand for themselves.
#[derive(Debug)]
struct Named {
    chain: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.named.iter().any(|n| n.as_ref() == certificate.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        self.chain.verify_server_cert(certificate, between, name, ocsp, now)
    }

    // Whoever shows a certificate must have its key, whichever way it is believed.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let said = |e| format!("{}: {e}", path.display());
    CertificateDer::pem_file_iter(path).map_err(said)?.collect::<Result<_, _>>().map_err(said)
}
