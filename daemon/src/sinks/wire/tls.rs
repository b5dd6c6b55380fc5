//! TLS for syslog (RFC 5425): whom to believe, and who we are.
//!
//! Comes in: the configured files. Goes out: what a connection is made with, or what is wrong with them. The files are read
//! anew for each connection, so a renewed certificate needs no reload.
#![forbid(unsafe_code)]

use crate::config::Tls;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// Whom this host believes, where nothing is configured (Debian and its kin, Red Hat and its).
const HOST: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// A connection that is still to shake hands with `host`.
///
/// # Errors
/// A file can't be read, or holds something else.
pub(super) fn connection(tls: &Tls, host: &str) -> Result<ClientConnection, String> {
    let name = tls.server_name.as_deref().unwrap_or_else(|| host.trim_matches(['[', ']']));
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| format!("`{name}` is no host's name or address"))?;
    ClientConnection::new(Arc::new(config(tls)?), name).map_err(|e| e.to_string())
}

/// What the configured files make. TLS 1.2 and 1.3.
///
/// # Errors
/// A file can't be read, or holds something else.
pub(in crate::sinks) fn config(tls: &Tls) -> Result<ClientConfig, String> {
    let host = HOST.iter().map(Path::new).find(|p| p.exists());
    let ca = tls.ca.as_deref().or(host).ok_or("there is no list of authorities on this host; set `ca`")?;
    let mut roots = RootCertStore::empty();
    let (good, bad) = roots.add_parsable_certificates(certificates(ca)?);
    if good == 0 {
        return Err(format!("{}: none of its {bad} certificates can be used", ca.display()));
    }
    // Named, not the process's default: nobody else's choice changes ours.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots);
    let mut config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let pem = PrivateKeyDer::from_pem_file(key).map_err(|e| format!("{}: {e}", key.display()))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, pem)
                .map_err(|e| format!("{} and {}: {e}", certificate.display(), key.display()))?
        }
    };
    // RFC 5425 wants no early data; a resumed session would outlive a change of certificates.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |e: rustls::pki_types::pem::Error| format!("{}: {e}", file.display());
    let all: Vec<_> =
        CertificateDer::pem_file_iter(file).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)?;
    if all.is_empty() { Err(format!("{}: there is no certificate in it", file.display())) } else { Ok(all) }
}
