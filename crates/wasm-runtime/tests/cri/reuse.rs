//! Instances that serve several requests: who shares one, and what ends it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use cri::RuntimeService;

use crate::async_guest;
use crate::fixtures;
use crate::world::{World, free_port};

const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that is kept: all its requests run on one thread of the host.
struct Connection(TcpStream);

impl Connection {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the pod listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
        Self(stream)
    }

    fn send(&mut self, method: &str) {
        let request = format!("{method} / HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n");
        self.0.write_all(request.as_bytes()).expect("the connection is open");
    }

    /// The status of the next answer.
    fn status(&mut self) -> u16 {
        let (mut answer, mut buffer) = (String::new(), [0; 4096]);
        while !is_whole(&answer) {
            let read = self.0.read(&mut buffer).expect("an answer in time");
            assert!(read > 0, "closed after {answer:?}");
            answer.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
    }

    fn ask(&mut self, method: &str) -> u16 {
        self.send(method);
        self.status()
    }
}

fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    match head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        Some(length) => length.parse::<usize>().is_ok_and(|length| body.len() >= length),
        None => body.ends_with("0\r\n\r\n"),
    }
}

/// As many as the host has threads, so that each has the same number when there are some more connections.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
}

async fn serve(world: &World, name: &str, component: &[u8], annotations: &[(&str, &str)]) -> u16 {
    let port = free_port();
    let mut container = world.container(name, component, port);
    container.resources.memory_limit_bytes = Some(15 << 20);
    for (annotation, value) in annotations {
        container.annotations.insert(format!("knarr.dev/{annotation}"), (*value).to_owned());
    }
    world.run(world.pod(name), container).await;
    port
}

/// Requests on one connection, one after the other, and what they are answered with.
async fn check(world: &World, name: &str, annotations: &[(&str, &str)], asked: &[(&str, u16)]) {
    let port = serve(world, name, &async_guest::service(), annotations).await;
    let asked: Vec<(String, u16)> = asked.iter().map(|(method, status)| ((*method).to_owned(), *status)).collect();
    let name = name.to_owned();
    let asking = move || {
        let mut connection = Connection::open(port);
        for (method, status) in asked {
            if method == "wait" {
                std::thread::sleep(Duration::from_millis(status.into()));
            } else {
                assert_eq!(connection.ask(&method), status, "{name}: {method}");
            }
        }
    };
    tokio::task::spawn_blocking(asking).await.unwrap();
}

#[tokio::test]
async fn an_instance_serves_until_it_has_had_enough() {
    let world = World::new().await;
    let (get, delete) = ("GET", "DELETE");
    check(&world, "default", &[], &[(get, 401), (get, 402), (get, 403)]).await;
    let three = [("requests-per-instance", "3")];
    check(&world, "three", &three, &[(get, 401), (get, 402), (get, 403), (get, 401), (get, 402)]).await;
    check(&world, "fresh", &[("requests-per-instance", "1")], &[(get, 401), (get, 401)]).await;
    let idle = [("instance-idle-timeout", "0.2")];
    check(&world, "idle", &idle, &[(get, 401), (get, 402), ("wait", 700), (get, 401)]).await;
    check(&world, "grown", &[], &[(get, 401), (delete, 402), (get, 401)]).await;
    check(&world, "trap", &[], &[(get, 401), ("POST", 500), (get, 401), (get, 402)]).await;
    let quick = [("request-timeout", "0.5")];
    check(&world, "waits", &quick, &[(get, 401), ("PATCH", 504), (get, 401), (get, 402)]).await;
    check(&world, "spins", &quick, &[(get, 401), ("OPTIONS", 504), (get, 401)]).await;
    // Nobody has an instance for a pod that nobody asks.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for stats in world.runtime.list_stats().await.unwrap() {
        assert_eq!(stats.memory_working_set_bytes, 0, "{}", stats.name);
    }
    assert!(world.log("trap").contains("request failed: wasm trap: wasm `unreachable`"), "{}", world.log("trap"));
    assert!(world.log("waits").contains("its instance takes no more"), "{}", world.log("waits"));
    world.clean().await;
}

#[tokio::test]
async fn pods_of_one_image_share_no_instance() {
    let world = World::new().await;
    let first = serve(&world, "first", &async_guest::service(), &[]).await;
    let second = serve(&world, "second", &async_guest::service(), &[]).await;
    let asking = move || {
        let (mut first, mut second) = (Connection::open(first), Connection::open(second));
        assert_eq!([first.ask("GET"), second.ask("GET"), first.ask("GET"), second.ask("GET")], [401, 401, 402, 402]);
    };
    tokio::task::spawn_blocking(asking).await.unwrap();
    world.clean().await;
}

#[tokio::test]
async fn requests_run_at_once_in_one_instance() {
    let world = World::new().await;
    let port = serve(&world, "at-once", &async_guest::service(), &[]).await;
    let asking = move || {
        let mut connections: Vec<_> = (0..threads() * 6).map(|_| Connection::open(port)).collect();
        let began = Instant::now();
        connections.iter_mut().for_each(|connection| connection.send("PUT"));
        let statuses: Vec<u16> = connections.iter_mut().map(Connection::status).collect();
        assert!(began.elapsed() < Duration::from_millis(1500), "one after the other: {:?}", began.elapsed());
        // The count is the instance's when it answers. One that computes when a request comes gets another beside it.
        let shared = statuses.iter().filter(|status| **status >= 404).count();
        assert!(shared >= threads() * 4, "{statuses:?}");
    };
    tokio::task::spawn_blocking(asking).await.unwrap();
    world.clean().await;
}

#[tokio::test]
async fn a_trap_ends_what_its_instance_has_and_nothing_else() {
    let world = World::new().await;
    let port = serve(&world, "trap", &async_guest::service(), &[]).await;
    let other = serve(&world, "other", &async_guest::service(), &[]).await;
    let asking = move || {
        let mut other = Connection::open(other);
        let mut connections: Vec<_> = (0..=threads()).map(|_| Connection::open(port)).collect();
        let (mut waits, mut traps) = (connections.remove(0), connections.pop().expect("there are two at least"));
        waits.send("PUT");
        other.send("PUT");
        connections.iter_mut().for_each(|connection| connection.send("PUT"));
        std::thread::sleep(Duration::from_millis(50));
        let began = Instant::now();
        assert_eq!((traps.ask("POST"), waits.status()), (500, 500));
        assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
        for connection in connections.iter_mut().chain([&mut other]) {
            assert_eq!(connection.status(), 401);
        }
        assert_eq!(waits.ask("GET"), 401);
    };
    tokio::task::spawn_blocking(asking).await.unwrap();
    world.clean().await;
}

#[tokio::test]
async fn a_component_of_0_2_is_used_again_only_when_asked() {
    let world = World::new().await;
    let port = serve(&world, "sync", &fixtures::http_ok(), &[("requests-per-instance", "3")]).await;
    let asking = move || {
        let mut connection = Connection::open(port);
        for _ in 0..10 {
            assert_eq!(connection.ask("GET"), 200);
        }
    };
    tokio::task::spawn_blocking(asking).await.unwrap();
    world.clean().await;
}

#[tokio::test]
async fn a_pod_stops_while_an_instance_waits() {
    let world = World::new().await;
    let port = free_port();
    let mut container = world.container("stop", &async_guest::service(), port);
    container.annotations.insert("knarr.dev/instance-idle-timeout".to_owned(), "60".to_owned());
    let (_, id) = world.run(world.pod("stop"), container).await;
    tokio::task::spawn_blocking(move || assert_eq!(Connection::open(port).ask("GET"), 401)).await.unwrap();
    let began = Instant::now();
    world.runtime.stop_container(&id, Duration::from_secs(10)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stats = world.runtime.list_stats().await.unwrap();
    assert!(stats.iter().all(|one| one.memory_working_set_bytes == 0), "{stats:?}");
    world.clean().await;
}
