//! `exec`, `attach` and forwarded ports over the node endpoint, as the API server relays them.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, timeout};
use tokio_rustls::TlsConnector;

use crate::harness::Harness;

const PATIENCE: Duration = Duration::from_secs(10);

type Io = TokioIo<Upgraded>;

/// Asks for an upgrade. The answer's protocol and the connection, or code and text.
async fn upgrade(harness: &Harness, path: &str, headers: &[(&str, &str)]) -> Result<(String, Io), (u16, String)> {
    let stream = tokio::net::TcpStream::connect(harness.node.as_ref().unwrap().endpoint()).await.unwrap();
    let config = harness.pki.client_config("kube-apiserver-kubelet-client", "");
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut request = http::Request::get(path).header("host", "localhost").header("connection", "Upgrade");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    if response.status() != 101 {
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        return Err((status, String::from_utf8(body.to_vec()).unwrap()));
    }
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let protocol = header("sec-websocket-protocol").or(header("x-stream-protocol-version")).unwrap_or_default();
    Ok((protocol, TokioIo::new(hyper::upgrade::on(response).await.unwrap())))
}

async fn websocket(harness: &Harness, path: &str, protocols: &str) -> Result<(String, Io), (u16, String)> {
    let headers = [
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", protocols),
    ];
    upgrade(harness, path, &headers).await
}

/// A binary message with a mask of zeros.
async fn say(io: &mut Io, message: &[u8]) {
    let mut frame = vec![0x82, 0x80 | u8::try_from(message.len()).expect("short messages"), 0, 0, 0, 0];
    frame.extend_from_slice(message);
    io.write_all(&frame).await.unwrap();
}

/// The next message that is no ping; `None` when the other side closes.
async fn hear(io: &mut Io) -> Option<Vec<u8>> {
    loop {
        let mut head = [0; 2];
        timeout(PATIENCE, io.read_exact(&mut head)).await.expect("a frame in time").ok()?;
        let length = match head[1] {
            126 => usize::from(io.read_u16().await.unwrap()),
            length => usize::from(length),
        };
        let mut content = vec![0; length];
        io.read_exact(&mut content).await.unwrap();
        match head[0] {
            0x82 => return Some(content),
            0x88 => {
                assert_eq!(content, 1000_u16.to_be_bytes(), "a normal end");
                return None;
            }
            _ => {}
        }
    }
}

async fn running() -> Harness {
    let harness = Harness::start().await;
    harness.apply("web", json!({"containers": [{"name": "web", "image": "linux:v1", "stdin": true, "tty": true}]}));
    harness.until_running("web").await;
    harness
}

const EXEC: &str = "/exec/default/web/web?command=cat&command=-v";

#[tokio::test]
async fn commands_over_websocket() {
    let harness = running().await;
    let config = harness.linux.container_config("web").unwrap();
    assert_eq!(config.stdio, cri::Stdio { stdin: true, stdin_once: false, tty: true });
    let path = format!("{EXEC}&input=1&output=1&error=1");
    let offered = "v5.channel.k8s.io, v4.channel.k8s.io";
    let (protocol, mut io) = websocket(&harness, &path, offered).await.unwrap();
    assert_eq!(protocol, "v5.channel.k8s.io");
    assert_eq!(hear(&mut io).await.unwrap(), b"\x01");
    say(&mut io, b"\x00hello").await;
    assert_eq!(hear(&mut io).await.unwrap(), b"\x01hello");
    say(&mut io, b"\x04{\"Width\":80,\"Height\":24}").await;
    assert_eq!(hear(&mut io).await.unwrap(), b"\x0280x24");
    say(&mut io, b"\xff\x00").await;
    assert_eq!(hear(&mut io).await.unwrap(), b"\x03{\"metadata\":{},\"status\":\"Success\"}");
    assert_eq!(hear(&mut io).await, None);
    assert!(harness.linux.take_calls().iter().any(|call| call.ends_with(" cat -v")));

    harness.linux.exec_exits("web", 7);
    let (_, mut io) = websocket(&harness, &format!("{EXEC}&output=1"), "v4.channel.k8s.io").await.unwrap();
    assert_eq!(hear(&mut io).await.unwrap(), b"\x01");
    assert_eq!(hear(&mut io).await.unwrap(), b"\x01fake");
    let status = hear(&mut io).await.unwrap();
    assert!(status[0] == 3 && String::from_utf8_lossy(&status).contains("NonZeroExitCode"), "{status:?}");
    assert_eq!(hear(&mut io).await, None);

    // A client that goes away ends the command.
    let (_, io) = websocket(&harness, &path, "v5.channel.k8s.io").await.unwrap();
    drop(io);
    let gone = async {
        while !harness.linux.take_calls().iter().any(|call| call == "the client is gone") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the command is ended");
}

#[tokio::test]
async fn attached_clients_and_refusals() {
    let harness = running().await;
    let (_, mut io) = websocket(&harness, "/attach/default/web/web?output=1", "v4.channel.k8s.io").await.unwrap();
    assert_eq!(hear(&mut io).await.unwrap(), b"\x01");
    assert_eq!(hear(&mut io).await.unwrap(), b"\x01fake");
    assert_eq!(hear(&mut io).await.unwrap()[0], 3);

    let check = async |path: &str, protocols: &str, code: u16, text: &str| {
        let (got, body) = websocket(&harness, path, protocols).await.map(drop).unwrap_err();
        assert!(got == code && body.contains(text), "{path}: {got} {body}");
    };
    let v4 = "v4.channel.k8s.io";
    check(EXEC, v4, 400, "at least 1 of stdin, stdout, stderr").await;
    check("/exec/default/web/web?output=1", v4, 400, "a command is required").await;
    check("/exec/default/web/none?output=1&command=a", v4, 404, "container not found (\"none\")").await;
    check("/exec/default/none/web?output=1&command=a", v4, 404, "pod \"none\"").await;
    check(&format!("{EXEC}&output=1"), "v9.channel.k8s.io", 403, "none of the protocols").await;
    check("/portForward/default/web", "v4.channel.k8s.io", 400, "\"ports\" is required").await;
    let (code, text) = upgrade(&harness, &format!("{EXEC}&output=1"), &[]).await.map(drop).unwrap_err();
    assert!(code == 400 && text.contains("you must upgrade"), "{text}");
    let (code, text) = upgrade(&harness, "/dial/default/web/1", &[("upgrade", "tcp")]).await.map(drop).unwrap_err();
    assert!(code == 502 && text.contains("error forwarding port 1 to pod web"), "{code} {text}");
}

#[tokio::test]
async fn ports_are_forwarded_and_dialed() {
    let harness = running().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    let path = format!("/dial/default/web/{port}");
    let (_, mut io) = upgrade(&harness, &path, &[("upgrade", "tcp")]).await.unwrap();
    io.write_all(b"plain").await.unwrap();
    let mut heard = [0; 5];
    timeout(PATIENCE, io.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"plain");

    let path = format!("/portForward/default/web?ports={port}");
    let (_, mut io) = websocket(&harness, &path, "v4.channel.k8s.io").await.unwrap();
    let mut heard = vec![hear(&mut io).await.unwrap(), hear(&mut io).await.unwrap()];
    heard.sort();
    let little = port.to_le_bytes();
    assert_eq!(heard, [[&[0], &little[..]].concat(), [&[1], &little[..]].concat()]);
    say(&mut io, b"\x00hello").await;
    assert_eq!(hear(&mut io).await.unwrap(), b"\x00hello");

    let spdy = [("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "portforward.k8s.io")];
    let (protocol, mut io) = upgrade(&harness, "/portForward/default/web", &spdy).await.unwrap();
    assert_eq!(protocol, "portforward.k8s.io");
    // A SPDY ping comes back.
    let ping = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9];
    io.write_all(&ping).await.unwrap();
    let mut heard = [0; 12];
    timeout(PATIENCE, io.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, ping);
    let (protocol, mut io) =
        websocket(&harness, "/portForward/default/web", "SPDY/3.1+portforward.k8s.io").await.unwrap();
    assert_eq!(protocol, "SPDY/3.1+portforward.k8s.io");
    say(&mut io, &ping).await;
    assert_eq!(hear(&mut io).await.unwrap(), ping);
}
