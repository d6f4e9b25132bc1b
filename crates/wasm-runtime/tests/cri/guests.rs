//! The example guests, where they were built (`cargo xtask wasm-apps`).

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use cri::{ContainerState, DnsConfig, Isolation, NetworkAttachment, RuntimeService};

use crate::linux_namespace::LinuxNamespace;
use crate::world::{World, blocking_get, free_port, get};

const ADDRESS: &str = "10.99.0.1";

fn guest(name: &str) -> Option<Vec<u8>> {
    let helper = Path::new(env!("CARGO_BIN_EXE_wasm-helper"));
    let target = helper.parent().and_then(Path::parent).unwrap();
    let path = target.join("wasm-apps").join(format!("{name}.wasm"));
    let bytes = std::fs::read(&path).ok();
    if bytes.is_none() {
        println!("skipped: {} was not built (cargo xtask wasm-apps)", path.display());
    }
    bytes
}

#[tokio::test]
async fn hello_http_serves() {
    let Some(bytes) = guest("hello-http") else { return };
    let world = World::new().await;
    let port = free_port();
    let mut container = world.container("hello", &bytes, port);
    container.env = vec![("GREETING".to_owned(), "Ahoy".to_owned()), ("HOSTNAME".to_owned(), "web-1".to_owned())];
    container.resources.memory_limit_bytes = Some(32 << 20);
    let (_, id) = world.run(world.pod("hello"), container).await;
    let check = async |path: &str, status: u16, text: &str| {
        let (got, answer) = get(port, path).await;
        assert!(got == status && answer.contains(text), "{path}: {answer}");
    };
    check("/", 200, "Ahoy from web-1").await;
    check("/headers", 200, "x-mark: seen").await;
    check("/log?text=a+line", 200, "logged").await;
    check("/grow?mib=8", 200, "8 MiB taken").await;
    check("/grow?mib=64", 500, "memory limit").await;
    check("/trap", 500, "trapped").await;
    check("/call?url=http://example.org/", 502, "HttpRequestDenied").await;
    check("/call?url=http://127.0.0.1/", 502, "HttpRequestDenied").await;
    check("/call?url=https://backend/", 502, "https is not offered").await;
    check("/", 200, "Ahoy from web-1").await;
    let log = world.log("hello");
    assert!(log.contains("stdout F a line") && log.contains("stderr F") && log.contains("trapped as asked"), "{log}");
    assert!(matches!(world.runtime.container_status(&id).await.unwrap().state, ContainerState::Running { .. }));
    world.clean().await;
}

#[tokio::test]
async fn hello_command_runs_once() {
    let Some(bytes) = guest("hello-command") else { return };
    let world = World::new().await;
    let volume = world.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("motd"), "fair winds").unwrap();
    let mut container = world.container("command", &bytes, 1);
    container.args = vec!["--all".to_owned()];
    container.env = vec![("READ_FILE".to_owned(), "/data/motd".to_owned()), ("EXIT_CODE".to_owned(), "1".to_owned())];
    container.mounts = vec![cri::Mount { host_path: volume, container_path: "/data".to_owned(), read_only: true }];
    let (_, id) = world.run(world.pod("command"), container).await;
    let state = world.exited(&id).await.state;
    let log = world.log("command");
    assert!(matches!(state, ContainerState::Exited { exit_code: 1, .. }), "{state:?} {log}");
    assert!(log.contains(r#"arguments: ["guest.wasm", "--all"]"#), "{log}");
    assert!(log.contains("/data/motd: fair winds"), "{log}");
    world.clean().await;
}

/// A backend and a nameserver that knows only it.
fn serve_backend_and_names(namespace: String) {
    let backend = TcpListener::bind((ADDRESS, 80)).unwrap();
    std::thread::spawn(move || {
        for stream in backend.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let text = "HTTP/1.1 200 OK\r\ncontent-length: 16\r\nconnection: close\r\n\r\nfrom the backend";
            let _ = stream.write_all(text.as_bytes());
        }
    });
    let names = UdpSocket::bind((ADDRESS, 53)).unwrap();
    let known: Vec<u8> = ["backend", &namespace, "svc", "cluster", "local"]
        .iter()
        .flat_map(|label| std::iter::once(u8::try_from(label.len()).unwrap()).chain(label.bytes()))
        .chain([0])
        .collect();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = names.recv_from(&mut question) {
            let is_known = question[12..length].starts_with(&known);
            let mut answer = question[..length].to_vec();
            answer[2..4].copy_from_slice(&[0x81, if is_known { 0x80 } else { 0x83 }]);
            if is_known {
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 99, 0, 1]);
            }
            let _ = names.send_to(&answer, from);
        }
    });
}

#[tokio::test]
async fn a_mixed_pod_calls_services_and_its_own_localhost() {
    let Some(bytes) = guest("hello-http") else { return };
    let Some(own) = LinuxNamespace::with_address(ADDRESS) else { return };
    let world = World::new().await;
    let namespace = world.namespace.clone();
    own.run(move || serve_backend_and_names(namespace)).await;
    let mut pod = world.pod("mixed");
    pod.isolation = Isolation::Pod;
    pod.network = NetworkAttachment::Namespace { ip: [10, 99, 0, 1].into(), path: own.path.clone() };
    pod.dns = DnsConfig {
        servers: vec![ADDRESS.to_owned()],
        searches: vec![format!("{}.svc.cluster.local", world.namespace), "svc.cluster.local".to_owned()],
        options: vec!["ndots:5".to_owned()],
    };
    let mut container = world.container("hello", &bytes, 8080);
    container.env = vec![("BACKEND_URL".to_owned(), "http://backend/".to_owned())];
    world.run(pod, container).await;
    let check = async |path: &str, status: u16, text: &str| {
        let asked = path.to_owned();
        let (got, answer) = own.run(move || blocking_get(8080, &asked)).await;
        assert!(got == status && answer.contains(text), "{path}: {answer}");
    };
    check("/backend", 200, "http://backend/ says: from the backend").await;
    check(&format!("/call?url=http://backend.{}/", world.namespace), 200, "from the backend").await;
    check(&format!("/call?url=http://backend.{}.svc.cluster.local:80/", world.namespace), 200, "from the backend")
        .await;
    check("/call?url=http://localhost:8080/healthz", 200, "ok").await;
    check("/call?url=http://other/", 502, "NXDOMAIN").await;
    check("/call?url=http://example.org/", 502, "HttpRequestDenied").await;
    check("/call?url=http://10.99.0.1/", 502, "HttpRequestDenied").await;
    world.clean().await;
}
