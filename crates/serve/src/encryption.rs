//! Encryption of connections: what it is made of, and the handshake.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::reload::Reload;
use crate::settings::Tls;

/// A certificate, its key, and the authority of clients, as of the last read of their files.
#[derive(Clone)]
pub(crate) struct Encryption {
    files: Tls,
    acceptor: Arc<ArcSwap<TlsAcceptor>>,
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encryption").finish_non_exhaustive()
    }
}

impl Encryption {
    /// Reads the files for TLS 1.2 and 1.3, by ring.
    ///
    /// # Errors
    /// If a file cannot be read or parsed; the message has no secret in it.
    pub(crate) fn read(files: &Tls) -> Result<Encryption, String> {
        let acceptor = Arc::new(ArcSwap::from_pointee(acceptor(files)?));
        Ok(Encryption { files: files.clone(), acceptor })
    }

    /// The stream, decrypted, once both sides are satisfied.
    ///
    /// # Errors
    /// If the client speaks otherwise, or shows no certificate that it must have.
    pub(crate) async fn accept<S>(&self, stream: S) -> std::io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::clone(&self.acceptor.load());
        acceptor.accept(stream).await
    }
}

impl Reload for Encryption {
    fn files(&self) -> Vec<&Path> {
        let Tls { certificate, key, client_authority } = &self.files;
        [Some(certificate), Some(key), client_authority.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
            .collect()
    }

    fn reload(&self) -> Result<(), String> {
        self.acceptor.store(Arc::new(acceptor(&self.files)?));
        Ok(())
    }
}

fn acceptor(files: &Tls) -> Result<TlsAcceptor, String> {
    let about = |path: &Path, error: String| format!("{}: {error}", path.display());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &files.client_authority {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| about(path, error.to_string()))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| about(path, error.to_string()))?,
            )
        }
    };
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|_| about(&files.key, "no private key in PEM could be read from it".to_owned()))?;
    let mut config = builder
        .with_single_cert(certificates(&files.certificate)?, key)
        .map_err(|error| about(&files.certificate, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let about = |error: rustls::pki_types::pem::Error| format!("{}: {error}", path.display());
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(about)?.collect();
    let all = all.map_err(about)?;
    if all.is_empty() {
        return Err(format!("{}: no certificate, expected PEM", path.display()));
    }
    Ok(all)
}
