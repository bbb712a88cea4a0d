//! A certificate of this measurement's own, for both sides and for the peers.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The file of the certificate in its folder; it is its own authority.
pub const CERTIFICATE: &str = "certificate.pem";
/// The file of its key.
pub const KEY: &str = "key.pem";

/// Makes one for 127.0.0.1 and localhost.
pub fn make(folder: &Path) -> io::Result<()> {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
    std::fs::write(folder.join(CERTIFICATE), made.cert.pem())?;
    std::fs::write(folder.join(KEY), made.signing_key.serialize_pem())
}

/// For who serves with it.
pub fn server(folder: &Path) -> io::Result<Arc<ServerConfig>> {
    let key = PrivateKeyDer::from_pem_file(folder.join(KEY)).map_err(io::Error::other)?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain(folder)?, key);
    Ok(Arc::new(config.map_err(io::Error::other)?))
}

/// For who trusts it.
pub fn client(folder: &Path) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(folder)? {
        roots.add(certificate).map_err(io::Error::other)?;
    }
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

fn chain(folder: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(folder.join(CERTIFICATE)).map_err(io::Error::other)?;
    certificates.map(|certificate| certificate.map_err(io::Error::other)).collect()
}
