//! Connections to Services without endpoints: accepted, held until there is one, passed on.
//!
//! Owns: the clients' sockets. May not know: how an endpoint comes to be.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::judge::Judge;
use super::worker::{Door, Open};
use super::{CONNECTIONS_MAX, HOLD_TIME_MAX};
use crate::service_proxy::{Backend, Frontend, IpProtocol};

/// After an error such as "too many open files".
const ACCEPT_REST: Duration = Duration::from_millis(50);
/// An endpoint that does not take a connection by then is tried again, or another.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
const CONNECT_REST: Duration = Duration::from_millis(50);

pub(super) async fn run(listener: TcpListener, door: Door, judge: Judge, shutdown: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, _)) => {
                let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                    refuse(&client);
                    continue;
                };
                let (door, judge, shutdown) = (door.clone(), judge.clone(), shutdown.clone());
                tokio::spawn(async move {
                    let _place = place;
                    tokio::select! { () = shutdown.cancelled() => {}, () = serve(client, door, &judge) => {} }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to a Service without endpoints");
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

async fn serve(mut client: TcpStream, mut door: Door, judge: &Judge) {
    // Who connects to this address itself was meant for nobody.
    let Ok(frontend) = meant(&client) else { return refuse(&client) };
    let Some(_entry) = door.enter(frontend).await else { return refuse(&client) };
    let deadline = Instant::now() + HOLD_TIME_MAX;
    let Ok(peer) = client.peer_addr() else { return refuse(&client) };
    let mut turn = usize::from(peer.port());
    let mut endpoint = loop {
        let open = async {
            let open = door.open.wait_for(|open| open.contains_key(&frontend)).await.ok()?;
            choose(&open, frontend, turn)
        };
        let backend = match timeout_at(deadline, left(&client, open)).await {
            Ok(Some(Some(backend))) => backend,
            // The client has gone.
            Ok(None) => return,
            Ok(Some(None)) | Err(_) => return refuse(&client),
        };
        if !judge.allows(peer, backend) {
            return refuse(&client);
        }
        match timeout(CONNECT_TIME_MAX, TcpStream::connect(SocketAddrV4::new(backend.address, backend.port))).await {
            Ok(Ok(endpoint)) => break endpoint,
            _ if Instant::now() >= deadline => return refuse(&client),
            // Not there any more, perhaps; nothing of the client's was sent.
            _ => sleep(CONNECT_REST).await,
        }
        turn = turn.wrapping_add(1);
    };
    let _ = client.set_nodelay(true);
    let _ = endpoint.set_nodelay(true);
    if copy_bidirectional(&mut client, &mut endpoint).await.is_err() {
        refuse(&client);
    }
}

/// What comes first: the wanted, or that the client leaves (`None`). What it sends stays where it is.
async fn left<T>(client: &TcpStream, wanted: impl Future<Output = T>) -> Option<T> {
    let gone = async {
        let mut byte = [0; 1];
        loop {
            match client.peek(&mut byte).await {
                // It has said something, or all that it has to say; it may wait for an answer all the same.
                Ok(_) => return std::future::pending::<()>().await,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    };
    tokio::select! { biased; wanted = wanted => Some(wanted), () = gone => None }
}

fn choose(open: &Open, frontend: Frontend, turn: usize) -> Option<Backend> {
    let backends = open.get(&frontend)?;
    backends.get(turn % backends.len().max(1)).copied()
}

/// The address that the client connected to, before the rules led it here.
fn meant(client: &TcpStream) -> io::Result<Frontend> {
    let original = getsockopt(client, sockopt::OriginalDst)?;
    let address = Ipv4Addr::from(u32::from_be(original.sin_addr.s_addr));
    Ok(Frontend { address, protocol: IpProtocol::Tcp, port: u16::from_be(original.sin_port) })
}

/// A reset, so that nobody takes it for an answer of length zero.
fn refuse(client: &TcpStream) {
    let _ = setsockopt(client, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 });
}
