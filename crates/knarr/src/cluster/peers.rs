//! TLS between the members of the control plane.
//!
//! Owns: how a member proves to another which one it is: both ends present a certificate of the peer
//! authority for `member-<id>.peers.knarr`, and each checks the other's. The dialling side refuses any
//! member but the one it wants; the accepting side takes the id from the certificate.
//! May not know: what members say to each other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use apiserver::ObjectFacets;
use async_trait::async_trait;
use rustls::pki_types::{CertificateDer, ServerName};
use store::{Dial, MemberId, PeerStream, Store};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;

use crate::pki::{Authority, PkiError};

/// Both ends must speak it.
const PROTOCOL: &[u8] = b"knarr-peer/1";
const DOMAIN: &str = ".peers.knarr";
/// Connections at the same time: each other member keeps at most 64 busy.
const CONNECTIONS_MAX: usize = 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// After accepting failed, which happens when the process has too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// `member-2.peers.knarr`
fn name_of(member: MemberId) -> String {
    format!("member-{member}{DOMAIN}")
}

fn member_of(name: &str) -> Option<MemberId> {
    name.strip_prefix("member-")?.strip_suffix(DOMAIN)?.parse().ok().map(MemberId)
}

/// Who a verified certificate speaks for.
fn member_of_certificate(certificate: &CertificateDer<'_>) -> Option<MemberId> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => member_of(name),
        _ => None,
    })
}

/// Both directions of one member.
pub struct PeerTls {
    acceptor: TlsAcceptor,
    dialer: PeerDialer,
}

impl PeerTls {
    pub fn new(authority: &Authority, me: MemberId) -> Result<Self, PkiError> {
        let leaf = authority.peer(&name_of(me))?;
        let mut server = authority.server_config(&leaf, true)?;
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        let mut client = authority.client_config(&leaf)?;
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(server));
        Ok(Self { acceptor, dialer: PeerDialer { connector: TlsConnector::from(Arc::new(client)) } })
    }

    /// For the store's transport.
    pub fn dialer(&self) -> PeerDialer {
        self.dialer.clone()
    }

    /// Answers other members until `shutdown`.
    pub fn spawn(
        &self,
        listener: TcpListener,
        store: Store<ObjectFacets>,
        shutdown: CancellationToken,
    ) -> JoinHandle<()> {
        tokio::spawn(accept(listener, self.acceptor.clone(), store, shutdown))
    }
}

#[derive(Clone)]
pub struct PeerDialer {
    connector: TlsConnector,
}

#[async_trait]
impl Dial for PeerDialer {
    async fn dial(&self, member: MemberId, address: &str) -> io::Result<Box<dyn PeerStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(name_of(member)).map_err(io::Error::other)?;
        Ok(Box::new(self.connector.connect(name, stream).await?))
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, store: Store<ObjectFacets>, shutdown: CancellationToken) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = connections.clone().acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let (acceptor, store, shutdown) = (acceptor.clone(), store.clone(), shutdown.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        ended = serve(stream, acceptor, store, permit) => if let Err(error) = ended {
                            tracing::debug!(%from, error = format!("{error:#}"), "connection of another member");
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting another member");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    store: Store<ObjectFacets>,
    _permit: OwnedSemaphorePermit,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
        .await
        .context("the TLS handshake took too long")?
        .context("TLS handshake")?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let member = certificate.and_then(member_of_certificate).context("the certificate is not a member's")?;
    store.serve_stream(member, stream).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::AuthorityName;

    fn authority(dir: &std::path::Path, name: AuthorityName) -> Authority {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Authority::open(dir, name).expect("a new authority")
    }

    #[test]
    fn names_are_ids() {
        assert_eq!(member_of(&name_of(MemberId(7))), Some(MemberId(7)));
        for other in ["member-7", "member-x.peers.knarr", "7.peers.knarr", "localhost"] {
            assert_eq!(member_of(other), None, "{other}");
        }
    }

    /// One handshake: what the dialling side got, and whom the accepting side saw.
    async fn shake(server: &PeerTls, client: &PeerTls, wanted: u64) -> (bool, Option<MemberId>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let acceptor = server.acceptor.clone();
        let accepted = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.ok()?;
            let mut stream = acceptor.accept(stream).await.ok()?;
            // In TLS 1.3 the client's certificate is judged after the client believes to be connected.
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1]).await;
            member_of_certificate(stream.get_ref().1.peer_certificates()?.first()?)
        });
        let dialled = client.dialer().dial(MemberId(wanted), &address).await;
        let connected = dialled.is_ok();
        drop(dialled);
        (connected, accepted.await.expect("the server's side does not panic"))
    }

    #[tokio::test]
    async fn each_end_knows_the_other_and_refuses_the_rest() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let peers = authority(dir.path(), AuthorityName::Peers);
        let other = authority(dir.path(), AuthorityName::Cluster);
        let tls = |authority: &Authority, id| PeerTls::new(authority, MemberId(id)).expect("a peer");
        let (one, two, stranger) = (tls(&peers, 1), tls(&peers, 2), tls(&other, 2));
        assert_eq!(shake(&one, &two, 1).await, (true, Some(MemberId(2))));
        assert_eq!(shake(&one, &two, 3).await, (false, None), "another member listens there");
        assert!(!shake(&stranger, &two, 2).await.0, "the server is of another authority");
        assert_eq!(shake(&one, &stranger, 1).await.1, None, "the client is of another authority");
    }
}
