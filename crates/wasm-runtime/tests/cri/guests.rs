//! The example guests, where they were built (`cargo xtask wasm-apps`).

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use cri::fake_key_value::FakeKeyValueStore;
use cri::{ContainerState, DnsConfig, Isolation, NetworkAttachment, RuntimeService};

use crate::linux_namespace::LinuxNamespace;
use crate::world::{World, ask, blocking_get, free_port, get};

const ADDRESS: &str = "10.99.0.1";

pub fn guest(name: &str) -> Option<Vec<u8>> {
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
    check("/call?url=https://127.0.0.1/", 502, "HttpRequestDenied").await;
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

/// Two pods of one namespace share a host process: one calls the other without a socket.
#[tokio::test]
async fn pods_of_one_host_call_each_other_in_process() {
    let Some(bytes) = guest("hello-http") else { return };
    let world = World::new().await;
    let (caller, callee) = (free_port(), free_port());
    // The caller's localhost is its own, so that it may call the address that the other one listens on.
    let mut pod = world.pod("caller");
    pod.network = NetworkAttachment::Namespace { ip: [127, 0, 0, 1].into(), path: "/proc/self/ns/net".into() };
    world.run(pod, world.container("caller", &bytes, caller)).await;
    let mut container = world.container("callee", &bytes, callee);
    container.env = vec![("HOSTNAME".to_owned(), "the callee".to_owned())];
    container.resources.memory_limit_bytes = Some(32 << 20);
    let (_, id) = world.run(world.pod("callee"), container).await;
    let check = async |path: &str, status: u16, text: &str| {
        let (got, answer) = get(caller, &format!("/call?url=http://127.0.0.1:{callee}{path}")).await;
        assert!(got == status && answer.contains(text), "{path}: {answer}");
    };
    for _ in 0..3 {
        check("/", 200, "Hello from the callee").await;
    }
    check("/trap", 500, "the component trapped").await;
    check("/grow?mib=64", 500, "the component reached its memory limit").await;
    assert_eq!(connections(callee), 0, "somebody connected");
    assert!(world.log("callee").contains("trapped as asked"), "{}", world.log("callee"));
    let stats = world.runtime.list_stats().await.unwrap();
    let spent = |name: &str| stats.iter().find(|one| one.name == name).unwrap().cpu_usage_nanos;
    assert!(spent("callee") > 0 && spent("caller") > 0, "{stats:?}");
    // Stopped is stopped, also for neighbours.
    world.runtime.stop_container(&id, std::time::Duration::from_secs(5)).await.unwrap();
    check("/", 502, "cannot call").await;
    world.clean().await;
}

/// TCP connections to or from a local port, also those that ended a moment ago.
fn connections(port: u16) -> usize {
    const LISTEN: &str = "0A";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{port:04X}");
    let sockets = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    sockets.filter(|fields| fields[3] != LISTEN && fields[1..3].iter().any(|end| end.ends_with(&port))).count()
}

#[tokio::test]
async fn api_keyvalue_keeps_counters() {
    let Some(bytes) = guest("api-keyvalue") else { return };
    let store = std::sync::Arc::new(FakeKeyValueStore::with(&["visits"]));
    let world = World::with_store(store.clone()).await;
    let port = free_port();
    let mut container = world.container("api", &bytes, port);
    container.annotations.insert("knarr.dev/buckets".to_owned(), "counters=visits".to_owned());
    world.run(world.pod("api"), container).await;
    let check = async |method: &str, path: &str, header: &str, body: &str, status: u16, text: &str| {
        let (got, answer) = ask(port, method, path, header, body).await;
        assert!(got == status && answer.ends_with(text), "{method} {path}: {answer}");
    };
    check("GET", "/counters/a", "", "", 404, "no such counter\n").await;
    check("POST", "/counters/a", "", "", 200, "\n1\n").await;
    check("POST", "/counters/a?by=-8", "", "", 200, "\n-7\n").await;
    check("PUT", "/counters/a", "", "12", 200, "\n12\n").await;
    check("PUT", "/counters/a", "if-match: 11", "13", 412, "the counter is 12\n").await;
    check("PUT", "/counters/a", "if-match: 12", "13", 200, "\n13\n").await;
    check("GET", "/counters/a", "", "", 200, "\n13\n").await;
    for name in ["b", "c", "d", "e"] {
        check("POST", &format!("/counters/{name}?by=2"), "", "", 200, "\n2\n").await;
    }
    check("GET", "/counters", "", "", 200, "\na 13\nb 2\nc 2\nd 2\ne 2\n").await;
    check("DELETE", "/counters/a", "", "", 200, "gone\n").await;
    check("DELETE", "/counters", "", "", 200, "gone\n").await;
    check("GET", "/counters", "", "", 200, "\r\n\r\n").await;
    assert_eq!(store.value("visits", "e"), None);
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
