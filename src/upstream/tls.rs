//! TLS towards the upstream: certificates are always verified, against the authorities that the configuration names.
//! Session keys are written nowhere, whatever `SSLKEYLOGFILE` says.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::error::Unreached;
use crate::upstream::settings::Roots;

/// The client side of every connection to the upstream: HTTP/1.1 alone is offered.
///
/// # Errors
/// Why the trusted authorities cannot be read.
pub fn client_config(roots: &Roots) -> Result<Arc<ClientConfig>, TlsFault> {
    // The provider is named because a second one in the tree would make rustls panic at the first handshake.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| TlsFault::Provider)?
        .with_root_certificates(store(roots)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The trusted authorities.
fn store(roots: &Roots) -> Result<RootCertStore, TlsFault> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::Bundled => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Roots::System => {
            // What of the machine's store cannot be parsed is left out, as every other program does.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(TlsFault::NoSystemRoots);
            }
        }
        Roots::File(path) => {
            let unreadable = |_| TlsFault::Roots(path.clone());
            for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                store.add(certificate.map_err(unreadable)?).map_err(|_| TlsFault::Roots(path.clone()))?;
            }
            if store.is_empty() {
                return Err(TlsFault::Roots(path.clone()));
            }
        }
    }
    Ok(store)
}

/// What a failed handshake was about: the certificate, or the protocol.
pub(super) fn reason(error: &std::io::Error) -> Unreached {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => Unreached::Certificate,
        _ => Unreached::Tls,
    }
}

/// Why there can be no TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// The file names no authority, or something that is none.
    #[error("upstream.roots: {0} cannot be read as PEM certificates of authorities")]
    Roots(PathBuf),
    /// The machine has no store.
    #[error("upstream.roots: this machine has no store of certificate authorities")]
    NoSystemRoots,
    /// The build of the TLS library lacks a protocol version.
    #[error("the TLS library offers no protocol version")]
    Provider,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_authorities_are_there_and_http_1_1_alone_is_offered() {
        let config = client_config(&Roots::Bundled).unwrap();
        assert_eq!(config.alpn_protocols, [b"http/1.1"]);
        assert!(store(&Roots::Bundled).unwrap().len() > 50);
    }

    #[test]
    fn a_file_without_authorities_is_refused() {
        let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        for path in [path, PathBuf::from("/nonexistent/roots.pem")] {
            let roots = Roots::File(path.clone());
            assert_eq!(client_config(&roots).unwrap_err(), TlsFault::Roots(path));
        }
    }
}
