//! Calling exports: single calls and streams, limits, traps, stopping.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cri::{ContainerConfig, ContainerId, ContainerState, RuntimeService};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::fixtures;
use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(30);

/// Lines that are sent at once, as a body of a request is.
fn lines(calls: &[Value]) -> BoxStream<'static, Bytes> {
    let text: String = calls.iter().map(|call| format!("{call}\n")).collect();
    futures::stream::iter([Bytes::from(text)]).boxed()
}

async fn answers(world: &World, id: &ContainerId, calls: BoxStream<'static, Bytes>) -> Vec<Value> {
    let mut answers = world.runtime.invoke(id, calls).await.unwrap();
    let mut text = Vec::new();
    while let Some(part) = tokio::time::timeout(PATIENCE, answers.next()).await.unwrap() {
        text.extend_from_slice(&part.unwrap());
    }
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

async fn answer(world: &World, id: &ContainerId, call: Value) -> Value {
    answers(world, id, lines(&[call])).await.remove(0)
}

fn container(world: &World, name: &str, annotations: &[(&str, &str)]) -> ContainerConfig {
    let mut container = world.container(name, &fixtures::typed_plugin(), 1);
    container.resources.memory_limit_bytes = Some(16 << 20);
    for (key, value) in annotations {
        container.annotations.insert(format!("knarr.dev/{key}"), (*value).to_owned());
    }
    container
}

async fn plugin(world: &World, name: &str, annotations: &[(&str, &str)]) -> ContainerId {
    world.run(world.pod(name), container(world, name, annotations)).await.1
}

#[tokio::test]
async fn exports_are_described() {
    let world = World::new().await;
    let id = plugin(&world, "described", &[]).await;
    let exports = world.runtime.exports(&id).await.unwrap();
    let named: Vec<(&str, &str)> = exports.iter().map(|one| (one.name.as_str(), one.signature.as_str())).collect();
    assert!(named.contains(&("add", "func(a: u32, b: u32) -> u32")), "{named:?}");
    assert!(named.contains(&("half", "func(a: u32) -> result<u32, u32>")), "{named:?}");
    assert!(named.contains(&("acme:math/tools@1.0.0#echo", "func(text: string) -> string")), "{named:?}");
    world.clean().await;
}

#[tokio::test]
async fn a_call_has_a_result_an_error_of_its_own_or_a_status() {
    let world = World::new().await;
    let id = plugin(&world, "calls", &[("request-timeout", "0.3")]).await;
    let check =
        async |call: Value, expect: Value| assert_eq!(answer(&world, &id, call.clone()).await, expect, "{call}");
    check(json!({"export": "add", "args": [2, 40]}), json!({"result": 42})).await;
    check(json!({"export": "add", "args": {"b": 2, "a": 1}}), json!({"result": 3})).await;
    check(json!({"wave": "add(2, 40)"}), json!({"result": "42"})).await;
    check(json!({"export": "half", "args": [8]}), json!({"result": 4})).await;
    check(json!({"export": "half", "args": [7]}), json!({"error": 7})).await;
    check(json!({"wave": "half(7)"}), json!({"error": "err(7)"})).await;
    check(json!({"export": "nothing"}), json!({"result": null})).await;
    check(json!({"export": "tools.echo", "args": ["fair winds ⛵"]}), json!({"result": "fair winds ⛵"})).await;
    let refused = async |call: Value, code: u64, reason: &str, message: &str| {
        let status = answer(&world, &id, call.clone()).await["status"].clone();
        assert_eq!((status["code"].as_u64(), status["reason"].as_str()), (Some(code), Some(reason)), "{call} {status}");
        assert!(status["message"].as_str().unwrap().contains(message), "{status}");
        status
    };
    refused(
        json!({"export": "sub"}),
        404,
        "ExportNotFound",
        "there is no export `sub`; it has: acme:math/tools@1.0.0#echo, add, half",
    )
    .await;
    let status =
        refused(json!({"export": "add", "args": [1, "x"]}), 400, "BadArgument", "expected u32, got \"x\"").await;
    assert_eq!(status["details"]["causes"][0]["field"], "b");
    check(json!({"export": "echo", "args": ["x".repeat(8 << 10)]}), json!({"result": "x".repeat(8 << 10)})).await;
    refused(json!({"export": "echo", "args": ["x".repeat(1 << 20)]}), 413, "RequestEntityTooLarge", "memory limit")
        .await;
    let begin = Instant::now();
    refused(json!({"export": "spin"}), 504, "DeadlineExceeded", "spin: took longer than its timeout of 300ms").await;
    assert!(begin.elapsed() < Duration::from_secs(5));
    refused(json!({"export": "grow"}), 500, "OutOfMemory", "memory limit of 16777216 bytes").await;
    let status = refused(json!({"export": "trap"}), 500, "Trapped", "unreachable").await;
    let frames = status["details"]["causes"].to_string();
    assert!(frames.contains("inner-most") && frames.contains("outer-most"), "{frames}");
    assert!(status["message"].as_str().unwrap().contains("inner-most"), "{status}");
    check(json!({"export": "add", "args": [1, 1]}), json!({"result": 2})).await;
    assert!(world.log("calls").contains("stderr F"), "a trap is in the log");
    world.clean().await;
}

#[tokio::test]
async fn each_call_has_an_instance_of_its_own() {
    let world = World::new().await;
    let id = plugin(&world, "fresh", &[]).await;
    let calls = vec![json!({"export": "count"}); 100];
    for answer in answers(&world, &id, lines(&calls)).await {
        assert_eq!(answer, json!({"result": 1}));
    }
    world.clean().await;
}

#[tokio::test]
async fn a_stream_is_answered_in_order_whatever_each_call_takes() {
    let world = World::new().await;
    let id = plugin(&world, "stream", &[("request-timeout", "0.2")]).await;
    let call = |number: u32| match number % 500 {
        250 => json!({"export": "spin"}),
        251 => json!({"export": "trap"}),
        252 => json!("no call"),
        _ => json!({"export": "add", "args": [number, 1]}),
    };
    let calls: Vec<Value> = (0..2000).map(call).collect();
    let answers = answers(&world, &id, lines(&calls)).await;
    assert_eq!(answers.len(), 2000);
    for (number, answer) in answers.iter().enumerate() {
        match number % 500 {
            250 => assert_eq!(answer["status"]["code"], 504, "{number}"),
            251 => assert_eq!(answer["status"]["reason"], "Trapped", "{number}"),
            252 => assert_eq!(answer["status"]["reason"], "BadRequest", "{number}"),
            _ => assert_eq!(*answer, json!({"result": number + 1}), "{number}"),
        }
    }
    world.clean().await;
}

#[tokio::test]
async fn limits_refuse_what_is_too_much() {
    let world = World::new().await;
    let limits = [("calls-per-second", "5"), ("calls-at-once", "2"), ("request-timeout", "0.5")];
    let id = plugin(&world, "limited", &limits).await;
    let calls = vec![json!({"export": "add", "args": [1, 2]}); 20];
    let codes = |answers: &[Value], code: u64| answers.iter().filter(|one| one["status"]["code"] == code).count();
    let got = answers(&world, &id, lines(&calls)).await;
    assert!((15..=19).contains(&codes(&got, 429)), "{got:?}");
    let refused = got.iter().find(|one| one["status"]["code"] == 429).unwrap();
    assert_eq!(refused["status"]["details"]["retryAfterSeconds"], 1);
    assert!(refused["status"]["message"].as_str().unwrap().contains("(limit: 5)"), "{refused}");

    let id = plugin(&world, "at-once", &limits[1..]).await;
    let spin = || answer(&world, &id, json!({"export": "spin"}));
    let got: Vec<Value> = futures::future::join_all((0..6).map(|_| spin())).await;
    assert_eq!((codes(&got, 504), codes(&got, 429)), (2, 4), "{got:?}");
    // A stream waits for its turn instead.
    let calls = vec![json!({"export": "add", "args": [1, 2]}); 200];
    assert_eq!(codes(&answers(&world, &id, lines(&calls)).await, 429), 0);
    world.clean().await;
}

#[tokio::test]
async fn a_container_that_stops_ends_what_it_has_and_says_what_it_has_not() {
    let world = World::new().await;
    let id = plugin(&world, "stopping", &[("request-timeout", "1")]).await;
    let (calls, queue) = mpsc::unbounded_channel::<Bytes>();
    let queue = futures::stream::unfold(queue, |mut queue| async move { Some((queue.recv().await?, queue)) });
    let mut answers = world.runtime.invoke(&id, queue.boxed()).await.unwrap();
    calls.send(Bytes::from_static(b"{\"export\":\"add\",\"args\":[1,2]}\n")).unwrap();
    let first = answers.next().await.unwrap().unwrap();
    assert_eq!(first, Bytes::from_static(b"{\"result\":3}\n"));
    calls.send(Bytes::from_static(b"{\"export\":\"spin\"}\n{\"export\":\"half\"")).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begin = Instant::now();
    let stop = world.runtime.stop_container(&id, Duration::from_secs(20));
    let rest = async {
        let mut text = Vec::new();
        while let Some(part) = answers.next().await {
            text.extend_from_slice(&part.unwrap());
            if text.ends_with(b"{\"moved\":true}\n") {
                break;
            }
        }
        drop(calls);
        String::from_utf8(text).unwrap()
    };
    let (stopped, rest) = tokio::join!(stop, rest);
    stopped.unwrap();
    let rest: Vec<&str> = rest.lines().collect();
    assert!(rest[0].contains("DeadlineExceeded") && rest[1] == "{\"moved\":true}" && rest.len() == 2, "{rest:?}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    let state = world.runtime.container_status(&id).await.unwrap().state;
    assert!(matches!(state, ContainerState::Exited { exit_code: 0, .. }), "{state:?}");
    assert!(world.runtime.invoke(&id, lines(&[])).await.is_err(), "a container that ended takes no calls");
    world.clean().await;
}

#[tokio::test]
async fn imports_that_were_not_granted_keep_it_from_starting() {
    let world = World::new().await;
    let check = async |name: &str, allowed: &str, refused: Option<&str>| {
        let sandbox = world.runtime.run_pod_sandbox(world.pod(name)).await.unwrap();
        let mut container = world.container(name, &fixtures::http_ok(), crate::world::free_port());
        container.annotations.insert("knarr.dev/allowed-imports".to_owned(), allowed.to_owned());
        container.annotations.insert("knarr.dev/invoke-only".to_owned(), "true".to_owned());
        let id = world.runtime.create_container(&sandbox, container).await.unwrap();
        let started = world.runtime.start_container(&id).await.map_err(|error| error.to_string());
        match refused {
            None => started.unwrap(),
            Some(why) => assert!(started.clone().unwrap_err().contains(why), "{started:?}"),
        }
    };
    check("granted", "wasi:io,wasi:http/types@0.2.0", None).await;
    check("package", "wasi:http", None).await;
    check("denied", "wasi:io", Some("it imports wasi:http/types@0.2.0, which it was not granted")).await;
    world.clean().await;
}

#[tokio::test]
async fn exec_takes_wave_and_shows_where_it_trapped() {
    let world = World::new().await;
    let id = plugin(&world, "exec", &[]).await;
    let check = async |words: &[&str], code: i32, out: &str, err: &str| {
        let command: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let done = world.runtime.exec_sync(&id, &command, Duration::from_secs(10)).await.unwrap();
        assert_eq!((done.exit_code, String::from_utf8_lossy(&done.stdout).as_ref()), (code, out));
        assert!(String::from_utf8_lossy(&done.stderr).contains(err), "{done:?}");
    };
    check(&["add(2, 40)"], 0, "42\n", "").await;
    check(&["tools.echo(\"a b\")"], 0, "a b\n", "").await;
    check(&["tools.echo", "a b"], 0, "a b\n", "").await;
    check(&["half", "7"], 1, "", "7\n").await;
    check(&["add(2)"], 2, "", "add: args:").await;
    check(&["trap()"], 134, "", "inner-most").await;
    world.clean().await;
}
