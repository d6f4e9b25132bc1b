//! `/portForward/{namespace}/{pod}`: connections to a pod's ports, many in one; `/dial/{namespace}/{pod}/{port}`: one
//! connection as plain bytes, for the API server's proxy.

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::EndpointState;
use super::target::{self, Refusal};
use super::upgrade::{self, Wanted};
use crate::stream::activity::IDLE_MAX;
use crate::stream::forwarding::{self, PORTS_MAX};

const SPDY_PROTOCOLS: [&str; 1] = ["portforward.k8s.io"];
/// SPDY in WebSocket messages, then two channels for each port.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const WEBSOCKET_PROTOCOLS: [&str; 2] = [TUNNEL, "v4.channel.k8s.io"];
const PLAIN: &str = "tcp";

pub async fn port_forward(
    State(state): State<EndpointState>,
    Path((namespace, pod)): Path<(String, String)>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let answer = async {
        let dialer = target::dialer(&state, &namespace, &pod).await?;
        let (mut parts, _) = request.into_parts();
        match upgrade::wanted(&mut parts).await? {
            Wanted::Spdy(upgrade) => {
                let name = upgrade::choose_spdy(&parts.headers, &SPDY_PROTOCOLS)?;
                Ok(upgrade::spdy(&state.sessions, upgrade, name, |transport| forwarding::over_spdy(transport, dialer)))
            }
            Wanted::WebSocket(socket) => match upgrade::choose_websocket(&socket, &WEBSOCKET_PROTOCOLS)? {
                Some(TUNNEL) => Ok(upgrade::websocket(&state.sessions, *socket, Some(TUNNEL), |socket| {
                    forwarding::over_spdy(upgrade::tunnel(socket), dialer)
                })),
                name => {
                    let ports = ports(&query).map_err(|text| (StatusCode::BAD_REQUEST, text))?;
                    Ok(upgrade::websocket(&state.sessions, *socket, name, move |socket| async move {
                        let (replies, messages) = upgrade::split(socket);
                        forwarding::over_channels(&ports, dialer, messages, replies).await;
                    }))
                }
            },
            Wanted::Plain(_) => Err((StatusCode::BAD_REQUEST, "streams need WebSocket or SPDY/3.1\n".to_owned())),
        }
    };
    answer.await.unwrap_or_else(|refusal: Refusal| refusal.into_response())
}

/// The ports of the old protocol: `ports=80,443`, or one by one.
fn ports(query: &[(String, String)]) -> Result<Vec<u16>, String> {
    let words = query.iter().filter(|(key, _)| key == "ports" || key == "port").flat_map(|(_, value)| value.split(','));
    let mut ports = Vec::new();
    for word in words {
        let port = word.trim().parse().ok().filter(|port: &u16| *port > 0);
        ports.push(port.ok_or_else(|| format!("invalid port {word:?}\n"))?);
    }
    match ports.len() {
        0 => Err("query parameter \"ports\" is required\n".to_owned()),
        1..=PORTS_MAX => Ok(ports),
        many => Err(format!("{many} ports are too many; the limit is {PORTS_MAX}\n")),
    }
}

pub async fn dial(
    State(state): State<EndpointState>,
    Path((namespace, pod, port)): Path<(String, String, u16)>,
    request: Request,
) -> Response {
    let answer = async {
        let dialer = target::dialer(&state, &namespace, &pod).await?;
        let (mut parts, _) = request.into_parts();
        let Wanted::Plain(upgrade) = upgrade::wanted(&mut parts).await? else {
            return Err((StatusCode::BAD_REQUEST, format!("you must upgrade to {PLAIN}\n")));
        };
        let stream = Arc::clone(&dialer)(port).await.map_err(|why| (StatusCode::BAD_GATEWAY, format!("{why}\n")))?;
        Ok(upgrade::raw(&state.sessions, (upgrade, PLAIN), None, |io| copy(io, stream)))
    };
    answer.await.unwrap_or_else(|refusal: Refusal| refusal.into_response())
}

async fn copy(mut io: TokioIo<hyper::upgrade::Upgraded>, mut stream: TcpStream) {
    let copied = tokio::time::timeout(IDLE_MAX, tokio::io::copy_bidirectional(&mut io, &mut stream)).await;
    if let Ok(Err(error)) = copied {
        tracing::debug!(%error, "a connection to a pod's port broke off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        let check = |values: &[&str], expect: Result<&[u16], &str>| {
            let query: Vec<_> = values.iter().map(|value| ("ports".to_owned(), (*value).to_owned())).collect();
            assert_eq!(ports(&query).as_deref().map_err(String::as_str), expect, "{values:?}");
        };
        check(&["80"], Ok(&[80]));
        check(&["80,443", "8080"], Ok(&[80, 443, 8080]));
        check(&[], Err("query parameter \"ports\" is required\n"));
        check(&["0"], Err("invalid port \"0\"\n"));
        check(&["http"], Err("invalid port \"http\"\n"));
        let many = vec!["1"; PORTS_MAX + 1].join(",");
        check(&[&many], Err("33 ports are too many; the limit is 32\n"));
    }
}
