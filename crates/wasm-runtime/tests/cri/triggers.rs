//! HTTP triggers: requests that are calls of exports, with the limits of calls.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use cri::{ContainerConfig, ContainerId, ContainerState, RuntimeService};
use serde_json::{Value, json};

use crate::fixtures;
use crate::world::{World, ask, free_port};

const JSON: &str = "content-type: application/json";

/// A plugin whose exports have paths of their names, all methods; `math` takes what is below it.
fn container(world: &World, name: &str, port: u16, annotations: &[(&str, &str)]) -> ContainerConfig {
    let mut container = world.container(name, &fixtures::typed_plugin(), port);
    container.resources.memory_limit_bytes = Some(16 << 20);
    let exports = ["add", "half", "count", "nothing", "trap", "spin", "grow", "echo", "gone"];
    let mut routes: Vec<Value> = exports
        .map(|export| json!({ "path": format!("/{export}"), "methods": ["GET", "POST"], "export": export }))
        .into();
    routes.push(json!({ "path": "/math", "pathType": "Prefix", "methods": ["PUT"], "export": "add" }));
    routes.push(json!({ "path": "/own" }));
    for (key, value) in [("invoke-only", "true"), ("http-routes", &json!(routes).to_string())].iter().chain(annotations)
    {
        container.annotations.insert(format!("knarr.dev/{key}"), (*value).to_owned());
    }
    container
}

async fn plugin(world: &World, name: &str, annotations: &[(&str, &str)]) -> (u16, ContainerId) {
    let port = free_port();
    (port, world.run(world.pod(name), container(world, name, port, annotations)).await.1)
}

/// Status, headers in small letters, and the body.
async fn request(port: u16, method: &str, path: &str, header: &str, body: &str) -> (u16, String, Value) {
    let (status, answer) = ask(port, method, path, header, body).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|_| panic!("{method} {path}: {answer}"));
    (status, head.to_ascii_lowercase(), body)
}

#[tokio::test]
async fn a_request_is_a_call() {
    let world = World::new().await;
    let (port, _) = plugin(&world, "web-calls", &[("request-timeout", "0.3")]).await;
    let check = async |method: &str, path: &str, body: &str, code: u16, expect: Value| {
        let header = if body.is_empty() { "" } else { JSON };
        let (status, head, got) = request(port, method, path, header, body).await;
        assert_eq!((status, &got), (code, &expect), "{method} {path} {body}");
        assert!(head.contains("content-type: application/json"), "{head}");
    };
    check("POST", "/add", "[2, 40]", 200, json!({ "result": 42 })).await;
    check("POST", "/add", r#"{"b": 2, "a": 1}"#, 200, json!({ "result": 3 })).await;
    check("GET", "/add?a=2&b=40", "", 200, json!({ "result": 42 })).await;
    check("PUT", "/math/of/ours?a=2&b=3", "", 200, json!({ "result": 5 })).await;
    check("GET", "/half?a=8", "", 200, json!({ "result": 4 })).await;
    check("GET", "/half?a=7", "", 422, json!({ "error": 7 })).await;
    check("POST", "/nothing", "", 200, json!({ "result": null })).await;
    check("GET", "/echo?text=fair+winds%20%E2%9B%B5", "", 200, json!({ "result": "fair winds ⛵" })).await;
    let refused = async |method: &str, path: &str, header: &str, body: &str, expect: (u16, &str, &str)| {
        let (status, head, got) = request(port, method, path, header, body).await;
        let got = &got["status"];
        let (code, reason, message) = expect;
        assert_eq!(
            (status, got["code"].as_u64(), got["reason"].as_str()),
            (code, Some(code.into()), Some(reason)),
            "{got}"
        );
        assert!(got["message"].as_str().unwrap().contains(message), "{method} {path}: {got}");
        head
    };
    refused("GET", "/else", "", "", (404, "NotFound", "no trigger of the function has the path /else")).await;
    refused("GET", "/add/more", "", "", (404, "NotFound", "/add/more")).await;
    let head = refused("DELETE", "/add", "", "", (405, "MethodNotAllowed", "must be GET or POST")).await;
    assert!(head.contains("allow: get, post"), "{head}");
    refused("GET", "/gone", "", "", (404, "ExportNotFound", "there is no export `gone`; it has: ")).await;
    refused("GET", "/own", "", "", (404, "NotFound", "the component has no HTTP handler")).await;
    refused("GET", "/add?a=1", "", "", (400, "BadArgument", "add: b: expected u32, got nothing")).await;
    refused("GET", "/add?a=1&b=x", "", "", (400, "BadArgument", "expected u32, got \"x\"")).await;
    refused("POST", "/add", JSON, "[1, ", (400, "BadRequest", "the body has the arguments")).await;
    refused("POST", "/add", "content-type: text/plain", "[1, 2]", (415, "UnsupportedMediaType", "text/plain")).await;
    refused("POST", "/echo", JSON, &json!(["x".repeat(1 << 20)]).to_string(), (413, "RequestEntityTooLarge", "memory"))
        .await;
    refused("GET", "/grow", "", "", (500, "OutOfMemory", "memory limit of 16777216 bytes")).await;
    refused("GET", "/trap", "", "", (500, "Trapped", "inner-most")).await;
    let begin = Instant::now();
    refused("GET", "/spin", "", "", (504, "DeadlineExceeded", "took longer than its timeout of 300ms")).await;
    assert!(begin.elapsed() < Duration::from_secs(5));
    for _ in 0..3 {
        check("GET", "/count", "", 200, json!({ "result": 1 })).await;
    }
    world.clean().await;
}

#[tokio::test]
async fn a_body_has_a_limit_of_bytes() {
    let world = World::new().await;
    let port = free_port();
    let mut container = container(&world, "long", port, &[]);
    container.resources.memory_limit_bytes = Some(512 << 20);
    world.run(world.pod("long"), container).await;
    let body = format!("[\"{}\"]", "x".repeat(4 << 20));
    let (status, _, got) = request(port, "POST", "/echo", JSON, &body).await;
    assert_eq!((status, got["status"]["message"].as_str()), (413, Some("a call may have 4194304 bytes")));
    world.clean().await;
}

#[tokio::test]
async fn requests_have_the_limits_of_calls_and_are_counted_as_such() {
    let world = World::new().await;
    let limits = [("calls-per-second", "5"), ("calls-at-once", "2"), ("request-timeout", "0.5")];
    let (port, id) = plugin(&world, "web-limits", &limits).await;
    let all = (0..12).map(|_| request(port, "GET", "/half?a=7", "", ""));
    let all = futures::future::join_all(all).await;
    let refused: Vec<_> = all.iter().filter(|(status, ..)| *status == 429).collect();
    assert!((6..=11).contains(&refused.len()), "{all:?}");
    assert!(refused[0].1.contains("retry-after: 1"), "{}", refused[0].1);
    assert_eq!(refused[0].2["status"]["details"]["retryAfterSeconds"], 1);
    let answered = u64::try_from(all.len() - refused.len()).unwrap();

    let counted = world.runtime.list_stats().await.unwrap();
    let counted = counted.iter().find(|one| one.id == id).unwrap();
    let calls = counted.calls.unwrap();
    assert_eq!((calls.begun, calls.failed, calls.refused), (answered, answered, 12 - answered), "{calls:?}");
    assert_eq!((calls.trapped, calls.timed_out, calls.out_of_memory), (0, 0, 0));
    assert!(counted.memory_peak_bytes.unwrap() >= 64 << 10, "{counted:?}");

    let (port, id) = plugin(&world, "web-at-once", &limits[1..]).await;
    let all = futures::future::join_all((0..6).map(|_| request(port, "GET", "/spin", "", ""))).await;
    let codes = |code: u16| all.iter().filter(|(status, ..)| *status == code).count();
    assert_eq!((codes(504), codes(429)), (2, 4), "{all:?}");
    request(port, "GET", "/grow", "", "").await;
    request(port, "GET", "/trap", "", "").await;
    let counted = world.runtime.list_stats().await.unwrap();
    let calls = counted.iter().find(|one| one.id == id).unwrap().calls.unwrap();
    assert_eq!((calls.begun, calls.trapped, calls.timed_out, calls.out_of_memory, calls.refused), (4, 4, 2, 1, 4));
    world.clean().await;
}

#[tokio::test]
async fn a_container_that_stops_answers_the_requests_it_has() {
    let world = World::new().await;
    let (port, id) = plugin(&world, "web-stops", &[("request-timeout", "1")]).await;
    let running = tokio::spawn(async move { request(port, "GET", "/spin", "", "").await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.runtime.stop_container(&id, Duration::from_secs(20)).await.unwrap();
    let (status, ..) = tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
    assert_eq!(status, 504, "it came to its end");
    let state = world.runtime.container_status(&id).await.unwrap().state;
    assert!(matches!(state, ContainerState::Exited { exit_code: 0, .. }), "{state:?}");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    world.clean().await;
}

#[tokio::test]
async fn a_client_that_sends_its_arguments_slowly_keeps_no_turn() {
    let world = World::new().await;
    let (port, _) = plugin(&world, "web-slow", &[("calls-at-once", "1")]).await;
    let slow = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "POST /add HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{JSON}\r\ncontent-length: 6\r\n\r\n[1,")
            .unwrap();
        std::thread::sleep(Duration::from_secs(1));
        write!(stream, " 2]").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (status, _, got) = request(port, "GET", "/add?a=1&b=1", "", "").await;
    assert_eq!((status, got), (200, json!({ "result": 2 })));
    assert!(slow.await.unwrap().ends_with("{\"result\":3}\n"));
    world.clean().await;
}

#[tokio::test]
async fn a_path_may_be_the_components_own_handler() {
    let world = World::new().await;
    let port = free_port();
    let mut container = world.container("own", &fixtures::http_ok(), port);
    let routes =
        json!([{ "path": "/", "pathType": "Prefix" }, { "path": "/api", "pathType": "Prefix", "export": "add" }]);
    for (key, value) in [("invoke-only", "true"), ("http-routes", &routes.to_string()), ("calls-per-second", "3")] {
        container.annotations.insert(format!("knarr.dev/{key}"), value.to_owned());
    }
    world.run(world.pod("own"), container).await;
    assert_eq!(ask(port, "GET", "/", "", "").await.0, 200);
    assert_eq!(ask(port, "BREW", "/any/path", "", "").await.0, 200);
    let (status, _, got) = request(port, "GET", "/api/add", "", "").await;
    assert_eq!((status, &got["status"]["reason"]), (404, &json!("ExportNotFound")));
    let all = futures::future::join_all((0..10).map(|_| ask(port, "GET", "/", "", ""))).await;
    assert!(all.iter().filter(|(status, _)| *status == 429).count() >= 6, "{all:?}");
    world.clean().await;
}
