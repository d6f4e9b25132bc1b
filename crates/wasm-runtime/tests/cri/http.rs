//! Serving HTTP: answers, traps, deadlines, memory, stopping.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use cri::{ContainerState, RuntimeService};
use futures::StreamExt;

use crate::fixtures;
use crate::world::{World, free_port, get};

#[tokio::test]
async fn serves_and_stops() {
    let world = World::new().await;
    let port = free_port();
    let mut events = world.runtime.events();
    let (sandbox, id) = world.run(world.pod("web"), world.container("web", &fixtures::http_ok(), port)).await;
    for _ in 0..20 {
        assert_eq!(get(port, "/").await.0, 200);
    }
    let state = world.runtime.container_status(&id).await.unwrap().state;
    assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
    let event = tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap();
    assert_eq!((event.pod_uid.as_str(), &event.container), ("web", &id));
    world.runtime.stop_container(&id, Duration::from_secs(10)).await.unwrap();
    let state = world.runtime.container_status(&id).await.unwrap().state;
    assert!(matches!(state, ContainerState::Exited { exit_code: 0, .. }), "{state:?}");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    world.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert!(world.runtime.list_containers().await.unwrap().is_empty());
    world.clean().await;
}

#[tokio::test]
async fn a_bad_request_ends_that_request_only() {
    let world = World::new().await;
    let check = async |name: &str, bytes: Vec<u8>, status: u16, log: &str| {
        let port = free_port();
        let mut container = world.container(name, &bytes, port);
        container.resources.memory_limit_bytes = Some(16 << 20);
        container.annotations.insert("knarr.dev/request-timeout".to_owned(), "0.3".to_owned());
        let (_, id) = world.run(world.pod(name), container).await;
        for _ in 0..2 {
            let begin = Instant::now();
            assert_eq!(get(port, "/").await.0, status, "{name}");
            assert!(begin.elapsed() < Duration::from_secs(5), "{name}");
        }
        assert!(world.log(name).contains(log), "{name}: {}", world.log(name));
        let state = world.runtime.container_status(&id).await.unwrap().state;
        assert!(matches!(state, ContainerState::Running { .. }), "{name}: {state:?}");
    };
    check("trap", fixtures::http_trap(), 500, "stderr F request failed: wasm trap: wasm `unreachable`").await;
    check("spin", fixtures::http_spin(), 504, "stderr F request failed: ran longer than its deadline").await;
    check("grow", fixtures::http_grow(), 500, "memory limit reached").await;
    world.clean().await;
}

#[tokio::test]
async fn a_spinning_pod_does_not_stop_its_neighbours() {
    let world = World::new().await;
    let (bad, good) = (free_port(), free_port());
    world.run(world.pod("bad"), world.container("bad", &fixtures::http_spin(), bad)).await;
    world.run(world.pod("good"), world.container("good", &fixtures::http_ok(), good)).await;
    let spinning: Vec<_> = (0..8).map(|_| tokio::spawn(get(bad, "/"))).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begin = Instant::now();
    assert_eq!(get(good, "/").await.0, 200);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    world.clean().await;
    spinning.iter().for_each(|task| task.abort());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let world = World::new().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let sandbox = world.runtime.run_pod_sandbox(world.pod("taken")).await.unwrap();
    let container = world.container("taken", &fixtures::http_ok(), port);
    let id = world.runtime.create_container(&sandbox, container).await.unwrap();
    let error = world.runtime.start_container(&id).await.unwrap_err();
    assert_eq!(error.reason(), "RunContainerError");
    assert!(error.to_string().contains(&format!("cannot listen on 127.0.0.1:{port}")), "{error}");
    world.clean().await;
}

#[tokio::test]
async fn a_body_that_nobody_reads_does_not_end_its_connection() {
    let world = World::new().await;
    let port = free_port();
    world.run(world.pod("unread"), world.container("unread", &fixtures::http_ok(), port)).await;
    let asking = move || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let body = "x".repeat(512 << 10);
        let mut answers = String::new();
        for number in 1..=3 {
            let head = format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body.as_bytes()).unwrap();
            while answers.matches("HTTP/1.1 200").count() < number {
                let mut buffer = [0; 4096];
                let read = stream.read(&mut buffer).unwrap();
                assert!(read > 0, "closed after {answers}");
                answers.push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        }
    };
    tokio::task::spawn_blocking(asking).await.unwrap();
    world.clean().await;
}
