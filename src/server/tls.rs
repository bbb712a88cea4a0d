//! TLS towards clients (`[server.tls]`): a certificate and its key from files, HTTP/2 and HTTP/1.1 by ALPN. The files are
//! read again when they change; connections that are open keep what they began with (`HARDENING.md` F-71).

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tracing::warn;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::settings::Tls;
use crate::exposure::{self, Exposure};

/// The certificate that new connections are shown.
pub struct Certificates(ArcSwap<Identity>);

/// A certificate, its key, and what is spoken under them.
pub struct Identity {
    config: Arc<ServerConfig>,
    /// The first of its chain.
    own: Option<CertificateDer<'static>>,
    /// Seconds since the Unix epoch.
    expires: i64,
    /// The file of the key, if others than its owner can read it.
    open_to_others: Option<String>,
}

impl Certificates {
    /// Shows this one from the first connection on.
    pub fn new(identity: Identity) -> Arc<Self> {
        identity.complain();
        Arc::new(Self(ArcSwap::from_pointee(identity)))
    }

    /// New connections are shown another.
    pub fn replace(&self, identity: Identity) {
        identity.complain();
        self.0.store(Arc::new(identity));
    }

    /// Whether they are shown this certificate already.
    pub fn shows(&self, identity: &Identity) -> bool {
        self.0.load().own == identity.own
    }

    /// The seconds until it expires; less than zero, it has.
    pub fn seconds_left(&self) -> i64 {
        self.0.load().seconds_left()
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load().config.clone())
    }
}

impl Identity {
    /// Reads the files of the settings; nothing if they name none.
    ///
    /// # Errors
    /// Why they cannot be used; no part of the key is told.
    pub fn read(settings: &Tls) -> Result<Option<Self>, TlsFault> {
        let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) else { return Ok(None) };
        let ((chain, expires), (private, open_to_others)) = match (chain(certificate), private(key)) {
            (Ok(read), Ok(private)) => (read, private),
            (Err(fault), Err(other)) => return Err(TlsFault::Both(Box::new([fault, other]))),
            (Err(fault), _) | (_, Err(fault)) => return Err(fault),
        };
        let own = chain.first().cloned();
        // The provider is named because a second one in the tree would make rustls panic at the first handshake.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| TlsFault::Provider)?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|_| TlsFault::Pair(certificate.display().to_string(), key.display().to_string()))?;
        config.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
        Ok(Some(Self { config: Arc::new(config), own, expires, open_to_others }))
    }

    /// What an operator should know of it, though it can be used.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let expired = (self.seconds_left() <= 0)
            .then(|| "the certificate of server.tls has expired: clients will refuse it".to_owned());
        let open = self.open_to_others.as_ref().map(|file| {
            format!("server.tls.key: {file} can be read by others than its owner: give it the mode 0600 where that can be done")
        });
        expired.into_iter().chain(open)
    }

    fn complain(&self) {
        for warning in self.warnings() {
            warn!("{warning}");
        }
    }

    fn seconds_left(&self) -> i64 {
        // The wall clock judges certificates, here as at the clients.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.expires.saturating_sub(i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
    }
}

/// The certificates in a file, and when the first one expires.
fn chain(file: &Path) -> Result<(Vec<CertificateDer<'static>>, i64), TlsFault> {
    let fault = |error: pem::Error| match error {
        pem::Error::Io(error) => TlsFault::unreadable("certificate", file, &error),
        _ => TlsFault::of(file),
    };
    let chain = CertificateDer::pem_file_iter(file).map_err(fault)?.collect::<Result<Vec<_>, _>>().map_err(fault)?;
    let expires = chain.first().and_then(|own| not_after(own)).ok_or_else(|| TlsFault::of(file))?;
    Ok((chain, expires))
}

/// The key in a file, and that file's name if others than its owner can read it.
fn private(path: &Path) -> Result<(PrivateKeyDer<'static>, Option<String>), TlsFault> {
    let unreadable = |error: &io::Error| TlsFault::unreadable("key", path, error);
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let credentials = std::env::var_os(exposure::CREDENTIALS);
    let exposure = Exposure::of(&file, path, credentials.as_deref().map(Path::new));
    let private = PrivateKeyDer::from_pem_reader(file).map_err(|error| match error {
        pem::Error::Io(error) => unreadable(&error),
        _ => TlsFault::Key(path.display().to_string()),
    })?;
    Ok((private, exposure.map(|_| path.display().to_string())))
}

/// The end of a certificate's validity (RFC 5280 §4.1.2.5), in seconds since the Unix epoch; rustls does not tell it.
fn not_after(certificate: &[u8]) -> Option<i64> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let end = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    i64::try_from(end.as_secs()).ok()
}

/// Why there can be no TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// One of the files cannot be read at all.
    #[error("server.tls.{0}: {1} cannot be read: {2}")]
    Unreadable(&'static str, String, String),
    /// The file of certificates.
    #[error("server.tls.certificate: {0} cannot be read as a chain of PEM certificates")]
    Certificate(String),
    /// The file of the key.
    #[error("server.tls.key: {0} cannot be read as a PEM private key")]
    Key(String),
    /// Neither file can be read.
    #[error("{}\n{}", .0[0], .0[1])]
    Both(Box<[Self; 2]>),
    /// They do not fit.
    #[error("server.tls: the key in {1} is not that of the first certificate in {0}")]
    Pair(String, String),
    /// The build of the TLS library lacks a protocol version.
    #[error("the TLS library offers no protocol version")]
    Provider,
}

impl TlsFault {
    fn unreadable(what: &'static str, file: &Path, error: &io::Error) -> Self {
        Self::Unreadable(what, file.display().to_string(), error.to_string())
    }

    fn of(certificate: &Path) -> Self {
        Self::Certificate(certificate.display().to_string())
    }
}

/// HTTP/2's name in ALPN.
pub(super) const HTTP_2: &[u8] = b"h2";

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn f71_the_end_of_a_certificate_is_read_and_what_is_none_has_no_end() {
        for ((year, month, day), want) in [
            ((2024, 2, 29), 1_709_164_800),
            ((2049, 12, 31), 2_524_521_600),
            ((2050, 1, 1), 2_524_608_000),
            ((2100, 3, 1), 4_107_542_400),
        ] {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, month, day);
            let whole = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
            assert_eq!(not_after(&whole), Some(want), "{year}-{month}-{day}");
            for cut in 0..whole.len() {
                assert_eq!(not_after(&whole[..cut]), None, "cut at {cut}");
            }
        }
    }
}
