//! Sockets that reach out for a container, from its pod's own address.
//!
//! The host shares the machine's network namespace with others, and by the address of a packet the kernel tells whose it
//! is: policies are enforced by that. A host with a namespace of its own has no choice of addresses and needs none of
//! this.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// `source` is the pod's address, where the host has others as well.
pub async fn connect(source: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let Some(source) = source else { return TcpStream::connect(to).await };
    let socket = match (source, to) {
        (IpAddr::V4(_), SocketAddr::V4(_)) => TcpSocket::new_v4()?,
        (IpAddr::V6(_), SocketAddr::V6(_)) => TcpSocket::new_v6()?,
        _ => return Err(other_family(source, to)),
    };
    // The port is chosen when it is known where to, so that a pod has as many connections as without its own address.
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(SocketAddr::new(source, 0))?;
    socket.connect(to).await
}

/// Connected: answers from anyone else never arrive.
pub async fn connect_udp(source: Option<IpAddr>, to: SocketAddr) -> io::Result<UdpSocket> {
    let local = match (source, to) {
        (None, SocketAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
        (None, SocketAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        (Some(source), to) if source.is_ipv4() == to.is_ipv4() => source,
        (Some(source), to) => return Err(other_family(source, to)),
    };
    let socket = UdpSocket::bind((local, 0)).await?;
    socket.connect(to).await?;
    Ok(socket)
}

fn other_family(source: IpAddr, to: SocketAddr) -> io::Error {
    io::Error::new(io::ErrorKind::NetworkUnreachable, format!("a pod at {source} has no way to {to}"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_source_is_the_pods() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        for (source, expect) in [(None, "127.0.0.1"), (Some("127.0.0.9"), "127.0.0.9")] {
            let source = source.map(|text| text.parse().unwrap());
            let _client = connect(source, to).await.unwrap();
            let (_, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip().to_string(), expect);
        }
        let asked = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let client = connect_udp(Some([127, 0, 0, 9].into()), asked.local_addr().unwrap()).await.unwrap();
        client.send(b"?").await.unwrap();
        let (_, peer) = asked.recv_from(&mut [0; 8]).await.unwrap();
        assert_eq!(peer.ip().to_string(), "127.0.0.9");
    }

    #[tokio::test]
    async fn another_family_would_be_another_address() {
        let to = "[::1]:9".parse().unwrap();
        let source = Some([127, 0, 0, 9].into());
        assert_eq!(connect(source, to).await.unwrap_err().kind(), io::ErrorKind::NetworkUnreachable);
        assert_eq!(connect_udp(source, to).await.unwrap_err().kind(), io::ErrorKind::NetworkUnreachable);
    }
}
