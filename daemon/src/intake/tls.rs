//! TLS and passwords for connections that intakes make.
#![forbid(unsafe_code)]

use crate::config::intake::Access;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
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
    roots.add_parsable_certificates(certificates(from)?);
    if roots.is_empty() {
        return Err(format!("{} holds no certificate that can be believed", from.display()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &access.certificate else { return Ok(builder.with_no_client_auth()) };
    let own = PrivateKeyDer::from_pem_file(key).map_err(|e| format!("{}: {e}", key.display()))?;
    builder
        .with_client_auth_cert(certificates(certificate)?, own)
        .map_err(|e| format!("{}: {e}", certificate.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let said = |e| format!("{}: {e}", path.display());
    CertificateDer::pem_file_iter(path).map_err(said)?.collect::<Result<_, _>>().map_err(said)
}
