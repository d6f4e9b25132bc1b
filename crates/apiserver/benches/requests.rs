//! What a request costs in the API server itself: no socket, no TLS, one client or many, a store on this disk.
//!
//! `cargo bench -p apiserver --bench requests [-- FILTER]`. The figures of the whole are `knarr bench api`.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apiserver::{ApiServer, ApiServerConfig, MASTERS, ObjectFacets, UserInfo};
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store::{Store, StoreConfig};
use tower::ServiceExt;

const LENGTH: Duration = Duration::from_secs(3);
const CLIENTS: [usize; 2] = [1, 64];
const LISTED: usize = 1000;

fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "a": "x".repeat(1024) } })
}

/// The pod of `knarr bench api`.
fn pod(name: &str) -> Value {
    let probe = json!({ "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 5 });
    let env: Vec<Value> = (0..5).map(|n| json!({ "name": format!("SETTING_{n}"), "value": "a value" })).collect();
    json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": "bench", "tier": "backend", "version": "v1" } },
        "spec": { "schedulerName": "nobody", "containers": [{
            "name": "app", "image": "registry.local/bench/app:v1", "env": env,
            "ports": [{ "containerPort": 8080, "name": "http" }],
            "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
            "readinessProbe": probe, "livenessProbe": probe }] } })
}

#[derive(Clone, Copy)]
struct Work {
    name: &'static str,
    method: &'static str,
    plural: &'static str,
    /// What is sent, made from a name; without it the name is read.
    body: Option<fn(&str) -> Value>,
    /// `None`: a new name for each request.
    path: Option<&'static str>,
}

const WORK: [Work; 5] = [
    Work { name: "create configmap", method: "POST", plural: "configmaps", body: Some(config_map), path: None },
    Work { name: "create pod", method: "POST", plural: "pods", body: Some(pod), path: None },
    Work { name: "get configmap", method: "GET", plural: "configmaps", body: None, path: Some("/read-me") },
    Work { name: "get pod", method: "GET", plural: "pods", body: None, path: Some("/read-me") },
    Work { name: "list 1000 pods", method: "GET", plural: "pods", body: None, path: Some("?labelSelector=listed") },
];

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a temporary directory");
        let store = Store::<ObjectFacets>::open(StoreConfig::new(dir.path())).await.expect("a store");
        let server = ApiServer::open(store, ApiServerConfig::new(Ipv4Addr::new(192, 0, 2, 1), 6443)).await;
        let server = server.expect("an API server");
        server.bootstrap().await.expect("bootstrap");
        prepare(&server).await;
        println!("{:<20} {:>8} {:>12} {:>14}", "", "clients", "per s", "cpu us each");
        for work in WORK.into_iter().filter(|work| work.name.contains(&filter)) {
            for clients in CLIENTS {
                let before = cpu();
                let (answered, took) = run(&server, work, clients).await;
                let cpu_us = (cpu() - before).as_secs_f64() * 1e6 / answered as f64;
                let per_s = answered as f64 / took.as_secs_f64();
                println!("{:<20} {clients:>8} {per_s:>12.0} {cpu_us:>14.1}", work.name);
            }
        }
    });
}

async fn prepare(server: &ApiServer) {
    for (plural, object) in [("configmaps", config_map("read-me")), ("pods", pod("read-me"))] {
        send(server, "POST", &path(plural), object.to_string()).await;
    }
    for number in 0..LISTED {
        let mut one = pod(&format!("listed-{number}"));
        one["metadata"]["labels"]["listed"] = "yes".into();
        send(server, "POST", &path("pods"), one.to_string()).await;
    }
}

fn path(plural: &str) -> String {
    format!("/api/v1/namespaces/default/{plural}")
}

async fn run(server: &ApiServer, work: Work, clients: usize) -> (usize, Duration) {
    let run: u32 = rand::random();
    let (began, counter) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let client = |server: ApiServer, counter: Arc<AtomicUsize>| async move {
        while began.elapsed() < LENGTH {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            let body = work.body.map_or_else(String::new, |body| body(&format!("c{run:x}-{number}")).to_string());
            send(&server, work.method, &(path(work.plural) + work.path.unwrap_or("")), body).await;
        }
    };
    let tasks: Vec<_> = (0..clients).map(|_| tokio::spawn(client(server.clone(), Arc::clone(&counter)))).collect();
    for task in tasks {
        task.await.expect("no client panics");
    }
    (counter.load(Ordering::Relaxed), began.elapsed())
}

async fn send(server: &ApiServer, method: &str, path: &str, body: String) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.body(Body::from(body)).expect("a request");
    let user = UserInfo::authenticated("admin", [MASTERS]);
    let response = server.client(user).oneshot(request).await.expect("infallible");
    let status = response.status();
    let bytes = response.into_body().collect().await.expect("a whole answer").to_bytes();
    assert!(status.is_success(), "{method} {path}: {status} {}", String::from_utf8_lossy(&bytes));
}

/// CPU time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc is mounted");
    let rest = stat.rsplit_once(')').expect("the name is in parentheses").1;
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}
