//! TLS whose own certificate is replaced while it is in use.
//!
//! Owns: the certificate that the next handshake shows. May not know: where certificates come from.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};

use super::{Leaf, PkiError, certificates, private_key, roots};

/// The certificate of one side.
pub struct Current(ArcSwap<CertifiedKey>);

impl Current {
    pub fn new(leaf: &Leaf) -> Result<Arc<Self>, PkiError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(certified(leaf)?))))
    }

    /// From the next handshake on.
    pub fn replace(&self, leaf: &Leaf) -> Result<(), PkiError> {
        self.0.store(Arc::new(certified(leaf)?));
        Ok(())
    }
}

/// Never the key.
impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn certified(leaf: &Leaf) -> Result<CertifiedKey, PkiError> {
    let tls = |why: String| PkiError::Tls { why };
    let provider = CryptoProvider::get_default().ok_or_else(|| tls("no crypto provider is installed".to_owned()))?;
    let (chain, key) = (certificates(&leaf.certificate_pem)?, private_key(&leaf.key_pem)?);
    CertifiedKey::from_der(chain, key, provider).map_err(|error| tls(error.to_string()))
}

/// A client of servers with a certificate of this authority (PEM), without one of its own.
pub fn trusting(authority_pem: &str) -> Result<ClientConfig, PkiError> {
    Ok(ClientConfig::builder().with_root_certificates(some_roots(authority_pem)?).with_no_client_auth())
}

/// The same with one.
pub fn client(authority_pem: &str, own: Arc<Current>) -> Result<ClientConfig, PkiError> {
    let builder = ClientConfig::builder().with_root_certificates(some_roots(authority_pem)?);
    Ok(builder.with_client_cert_resolver(own))
}

/// A server for clients with a certificate of this authority (PEM), and for no others.
pub fn server(authority_pem: &str, own: Arc<Current>) -> Result<ServerConfig, PkiError> {
    let verifier = WebPkiClientVerifier::builder(Arc::new(some_roots(authority_pem)?)).build();
    let verifier = verifier.map_err(|error| PkiError::Tls { why: error.to_string() })?;
    Ok(ServerConfig::builder().with_client_cert_verifier(verifier).with_cert_resolver(own))
}

fn some_roots(authority_pem: &str) -> Result<RootCertStore, PkiError> {
    let roots = roots(authority_pem)?;
    if roots.is_empty() {
        return Err(PkiError::Tls { why: "there is no certificate of an authority".to_owned() });
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, AuthorityName, Identity};
    use rustls::pki_types::ServerName;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    /// Whom each side of a handshake saw.
    async fn shake(server: &ServerConfig, client: &ClientConfig) -> Option<(Vec<u8>, Vec<u8>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let acceptor = TlsAcceptor::from(Arc::new(server.clone()));
        let accepted = tokio::spawn(async move {
            let stream = acceptor.accept(listener.accept().await.ok()?.0).await.ok()?;
            Some(stream.get_ref().1.peer_certificates()?.first()?.to_vec())
        });
        let name = ServerName::try_from("127.0.0.1").expect("an address is a name");
        let stream = TcpStream::connect(address).await.expect("somebody listens");
        let connected = TlsConnector::from(Arc::new(client.clone())).connect(name, stream).await.ok();
        let seen = connected.and_then(|stream| Some(stream.get_ref().1.peer_certificates()?.first()?.to_vec()));
        Some((accepted.await.expect("it does not panic")?, seen?))
    }

    #[tokio::test]
    async fn the_next_handshake_shows_the_new_certificate() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let authority = Authority::open(dir.path(), AuthorityName::Cluster).expect("a new authority");
        let client_leaf = || authority.client(&Identity { user: "c", groups: &[] }).expect("a certificate");
        let server_leaf = || authority.server("s", &[], &["127.0.0.1".parse().expect("an address")]).expect("another");
        let (ours, theirs) = (Current::new(&client_leaf()).unwrap(), Current::new(&server_leaf()).unwrap());
        let client = client(authority.certificate_pem(), Arc::clone(&ours)).unwrap();
        let server = server(authority.certificate_pem(), Arc::clone(&theirs)).unwrap();
        let first = shake(&server, &client).await.expect("both have certificates of the authority");
        assert_eq!(shake(&server, &client).await, Some(first.clone()));
        ours.replace(&client_leaf()).unwrap();
        theirs.replace(&server_leaf()).unwrap();
        let second = shake(&server, &client).await.expect("both still have");
        assert!(first.0 != second.0 && first.1 != second.1);
        // Whoever shows none, or one of another authority, does not get in.
        assert_eq!(shake(&server, &trusting(authority.certificate_pem()).unwrap()).await, None);
        let other = Authority::open(dir.path(), AuthorityName::Peers).expect("another authority");
        ours.replace(&other.client(&Identity { user: "c", groups: &[] }).expect("a certificate")).unwrap();
        assert_eq!(shake(&server, &client).await, None);
        assert!(trusting("").is_err());
    }
}
