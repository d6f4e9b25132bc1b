//! TLS of outgoing requests.
//!
//! Owns: whom a guest's connections trust: the certificate authorities that the machine trusts. Their file is opened
//! before the host gives up its rights, and read when the first guest needs it. May not know: HTTP.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, LazyLock, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wasmtime_wasi_http::Error;

/// Where distributions keep them in one file: Debian and Arch, Fedora and its kin, SUSE, Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Such a file has about 250 KiB.
const BUNDLE_BYTES_MAX: u64 = 8 << 20;

static BUNDLE: OnceLock<File> = OnceLock::new();
static PUBLIC: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| config(authorities()));

/// To be called while the process may still open files of the machine.
pub fn open_authorities() {
    if let Some(file) = BUNDLES.iter().find_map(|path| File::open(path).ok()) {
        // The first call counts; there is one.
        let _ = BUNDLE.set(file);
    }
}

/// None when the machine has none: then nobody is trusted.
fn authorities() -> RootCertStore {
    let mut pem = Vec::new();
    match BUNDLE.get() {
        Some(file) => {
            if let Err(error) = file.take(BUNDLE_BYTES_MAX).read_to_end(&mut pem) {
                tracing::warn!(%error, "cannot read the machine's certificate authorities");
            }
        }
        None => tracing::warn!("the machine has no file of certificate authorities: no guest can call https"),
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
    roots
}

/// How certificates are judged.
pub struct Tls {
    trust: Trust,
}

enum Trust {
    /// Made when the first guest needs it.
    Public,
    #[cfg(test)]
    Roots(Arc<ClientConfig>),
}

fn config(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config =
        builder.expect("the provider knows TLS 1.2 and 1.3").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

impl Tls {
    pub fn public() -> Self {
        Self { trust: Trust::Public }
    }

    #[cfg(test)]
    fn trusting(roots: RootCertStore) -> Self {
        Self { trust: Trust::Roots(config(roots)) }
    }

    pub async fn connect(&self, stream: TcpStream, name: &str) -> Result<TlsStream<TcpStream>, Error> {
        let config = match &self.trust {
            Trust::Public => Arc::clone(&PUBLIC),
            #[cfg(test)]
            Trust::Roots(config) => Arc::clone(config),
        };
        let name = ServerName::try_from(name.to_owned()).map_err(|_| Error::HttpRequestUriInvalid)?;
        TlsConnector::from(config).connect(name, stream).await.map_err(|error| judge(&error))
    }
}

/// In the words of `wasi:http`.
fn judge(error: &io::Error) -> Error {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => {
            Error::TlsAlertReceived { alert_id: Some(u8::from(*alert)), alert_message: Some(format!("{alert:?}")) }
        }
        _ => Error::TlsProtocolError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::ServerConfig;
    use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    /// A server whose certificate is its own authority, for `name`.
    async fn server(name: &str) -> (u16, CertificateDer<'static>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let der = certificate.der().clone();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = config.with_no_client_auth().with_single_cert(vec![der.clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move { acceptor.accept(stream).await.map(drop) });
            }
        });
        (port, der)
    }

    #[tokio::test]
    async fn only_a_trusted_certificate_of_that_name_is_taken() {
        let (port, certificate) = server("api.test").await;
        let connect = async |tls: &Tls, name: &str| {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tls.connect(stream, name).await.map(drop)
        };
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let trusting = Tls::trusting(roots);
        assert!(connect(&trusting, "api.test").await.is_ok());
        let refused = [connect(&trusting, "other.test").await, connect(&Tls::public(), "api.test").await];
        for refused in refused {
            assert!(matches!(refused, Err(Error::TlsCertificateError)), "{refused:?}");
        }
        assert!(matches!(connect(&trusting, "no name").await, Err(Error::HttpRequestUriInvalid)));
    }
}
