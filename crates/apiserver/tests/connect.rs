//! `exec`, `attach`, `portforward` and `proxy` against a node that is a function: who may, where it goes, and that
//! bytes pass both ways.

#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use apiserver::{NodeAddress, NodeConnectError, NodeConnector, UserInfo};
use async_trait::async_trait;
use axum::body::Body;
use harness::{Cluster, admin, pod};
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Takes over every connection it is asked to. On `/dial/` a web server answers, elsewhere whatever comes is
/// answered in capitals.
#[derive(Clone, Default)]
struct FakeNode {
    asked: Arc<Mutex<Vec<String>>>,
}

fn line(request: &Request<impl Sized>) -> String {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
    let credentials = request.headers().contains_key(header::AUTHORIZATION);
    format!("{} {} {} {credentials}", request.method(), request.uri(), header("x-stream-protocol-version"))
}

impl FakeNode {
    async fn answer(self, mut request: Request<hyper::body::Incoming>) -> Result<Response<Body>, Infallible> {
        self.asked.lock().unwrap().push(line(&request));
        let path = request.uri().path().to_owned();
        if !request.headers().contains_key(header::UPGRADE) {
            return Ok(Response::new(Body::from(format!("{path} of the node"))));
        }
        if path.contains("/none") {
            let absent = Response::builder().status(404).body(Body::from("container not found (\"none\")\n"));
            return Ok(absent.unwrap());
        }
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let upgraded = upgrade.await.expect("the client takes the connection over");
            if path.starts_with("/dial/") {
                let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let node = self.clone();
                    async move {
                        node.asked.lock().unwrap().push(format!("pod: {}", line(&request)));
                        Ok::<_, Infallible>(
                            Response::builder().status(418).header("x-tea", "green").body(Body::from("tea")).unwrap(),
                        )
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(upgraded, service).await;
                return;
            }
            let mut io = TokioIo::new(upgraded);
            let mut chunk = [0; 100];
            while let Ok(count @ 1..) = io.read(&mut chunk).await {
                io.write_all(&chunk[..count].to_ascii_uppercase()).await.unwrap();
            }
        });
        let upgrade = request.headers()[header::UPGRADE].clone();
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, upgrade)
            .header("x-stream-protocol-version", "v4.channel.k8s.io");
        Ok(response.body(Body::empty()).unwrap())
    }
}

#[async_trait]
impl NodeConnector for FakeNode {
    async fn send(&self, _: &NodeAddress, request: Request<Body>) -> Result<Response<Body>, NodeConnectError> {
        let (near, far) = tokio::io::duplex(1024);
        let node = self.clone();
        let service = hyper::service::service_fn(move |request| node.clone().answer(request));
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
            connection.with_upgrades().await
        });
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Ok(sender.send_request(request).await.unwrap().map(Body::new))
    }
}

struct Bench {
    cluster: Cluster,
    node: FakeNode,
}

impl Bench {
    async fn new() -> Self {
        let node = FakeNode::default();
        let connector = Arc::new(node.clone());
        let cluster = Cluster::with(|config| config.nodes = connector).await;
        let mut bound = pod("p");
        bound["spec"]["nodeName"] = "n1".into();
        bound["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 8080 }]);
        cluster.post(PODS, bound).await.expect(201);
        let status = json!({ "metadata": { "name": "n1" }, "status": { "nodeInfo": {},
            "addresses": [{ "type": "InternalIP", "address": "192.0.2.9" }] } });
        cluster.post("/api/v1/nodes", status).await.expect(201);
        Self { cluster, node }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.node.asked.lock().unwrap())
    }
}

fn upgrade_request(method: &str, path: &str) -> Request<Body> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "server")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .header(header::AUTHORIZATION, "Bearer secret")
        .header("x-stream-protocol-version", "v4.channel.k8s.io");
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn connections_are_relayed() {
    let bench = Bench::new().await;
    for (method, path, expect) in [
        (
            "POST",
            "p/exec?command=echo&command=a%20b%26&stdin=true&stdout=1&stderr=false&tty=true&container=c",
            "/exec/default/p/c?input=1&output=1&tty=1&command=echo&command=a%20b%26",
        ),
        ("GET", "p/attach?stdout=true&command=no", "/attach/default/p/c?output=1"),
        ("POST", "p/portforward?ports=80&ports=81", "/portForward/default/p?ports=80&ports=81"),
    ] {
        let response = bench.cluster.over_a_connection(upgrade_request(method, &format!("{PODS}/{path}"))).await;
        assert_eq!(response.status(), 101, "{path}");
        assert_eq!(response.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
        assert_eq!(bench.asked(), [format!("GET {expect} v4.channel.k8s.io false")]);
        let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        io.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        io.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"HELLO");
        io.shutdown().await.unwrap();
        assert_eq!(io.read(&mut heard).await.unwrap(), 0, "the end is passed on");
    }
}

#[tokio::test]
async fn who_may_and_what_is_refused() {
    let bench = Bench::new().await;
    let exec = format!("{PODS}/p/exec?command=a&stdout=1");
    bench.cluster.get(&exec).await.refused(400, "Upgrade request required");
    bench.cluster.get(&format!("{PODS}/p/exec?stdout=maybe")).await.refused(400, "\"maybe\" is not a boolean");
    bench.cluster.get(&format!("{PODS}/q/exec")).await.refused(404, "pods \"q\" not found");
    bench
        .cluster
        .call("PUT", &exec, json!({}))
        .await
        .refused(405, "the server does not allow this method on the requested resource");
    let mut two = pod("none");
    two["spec"]["nodeName"] = "n1".into();
    bench.cluster.post(PODS, two).await.expect(201);
    let response =
        bench.cluster.over_a_connection(upgrade_request("GET", &format!("{PODS}/none/exec?command=a"))).await;
    let (code, body) = (response.status(), response.into_body().collect().await.unwrap().to_bytes());
    let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code.as_u16(), &status["message"]), (404, &json!("container not found (\"none\")")));

    // To look is not enough, whatever the method.
    let role = json!({ "metadata": { "name": "look" },
        "rules": [{ "apiGroups": [""], "resources": ["pods/exec", "pods/proxy"], "verbs": ["get"] }] });
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    bench.cluster.post(&format!("{rbac}/roles"), role).await.expect(201);
    let binding = json!({ "metadata": { "name": "look" }, "subjects": [{ "kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io" }],
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "look" } });
    bench.cluster.post(&format!("{rbac}/rolebindings"), binding).await.expect(201);
    let jane = || UserInfo::authenticated("jane", Vec::<String>::new());
    let proxied = format!("{PODS}/p/proxy/x");
    for _ in 0..500 {
        if bench.cluster.call_as(jane(), "GET", &proxied, None).await.code != 403 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let why = "pods \"p\" is forbidden: User \"jane\" cannot create resource \"pods/exec\" in API group \"\" in the \
               namespace \"default\"";
    bench.cluster.call_as(jane(), "GET", &exec, None).await.refused(403, why);
    assert_eq!(bench.cluster.call_as(jane(), "GET", &proxied, None).await.code, 418);
    assert_eq!(bench.cluster.call_as(jane(), "DELETE", &proxied, None).await.code, 403);
}

#[tokio::test]
async fn requests_are_proxied() {
    let bench = Bench::new().await;
    let answer = bench.cluster.get(&format!("{PODS}/p/proxy/a%2Fb/?c=d")).await;
    assert_eq!(
        (answer.code, answer.body.as_str(), &answer.headers["x-tea"]),
        (418, Some("tea"), &"green".parse().unwrap())
    );
    assert_eq!(bench.asked(), ["GET /dial/default/p/8080 - false", "pod: GET /a%2Fb/?c=d - false"]);
    let request = Request::post(format!("{PODS}/p:81/proxy/x")).header(header::AUTHORIZATION, "Bearer secret");
    bench.cluster.send(admin(), request.body(Body::from("content")).unwrap()).await;
    assert_eq!(bench.asked(), ["GET /dial/default/p/81 - false", "pod: POST /x - false"]);
    let moved = bench.cluster.get(&format!("{PODS}/p/proxy?a=b")).await;
    assert_eq!((moved.code, &moved.headers[header::LOCATION]), (301, &format!("{PODS}/p/proxy/?a=b").parse().unwrap()));
    bench.cluster.get(&format!("{PODS}/p:http/proxy/")).await.refused(400, "invalid port \"http\"");
    bench.cluster.get(&format!("{PODS}/p:1:2:3/proxy/")).await.refused(400, "invalid proxy request \"p:1:2:3\"");

    let answer = bench.cluster.get("/api/v1/nodes/n1/proxy/metrics?x=y").await;
    assert_eq!((answer.code, answer.body.as_str()), (200, Some("/metrics of the node")));
    assert_eq!(bench.asked(), ["GET /metrics?x=y - false"]);
    let why = "of a node only its own endpoint is proxied, at port 10250";
    bench.cluster.get("/api/v1/nodes/n1:22/proxy/").await.refused(400, why);

    let service = json!({ "metadata": { "name": "s" }, "spec": { "ports": [{ "port": 80, "targetPort": 8080 }] } });
    let services = "/api/v1/namespaces/default/services";
    bench.cluster.post(services, service).await.expect(201);
    bench.cluster.get(&format!("{services}/s/proxy/")).await.refused(503, "no endpoints available for service \"s\"");
    let slice = json!({ "metadata": { "name": "s-1", "labels": { "kubernetes.io/service-name": "s" } },
        "addressType": "IPv4", "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }],
        "endpoints": [{ "addresses": ["10.32.0.2"], "conditions": { "ready": true }, "nodeName": "n1",
            "targetRef": { "kind": "Pod", "name": "p", "namespace": "default" } }] });
    bench.cluster.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await.expect(201);
    assert_eq!(bench.cluster.get(&format!("{services}/http:s:80/proxy/y")).await.code, 418);
    assert_eq!(bench.asked(), ["GET /dial/default/p/8080 - false", "pod: GET /y - false"]);
    bench
        .cluster
        .get(&format!("{services}/s:81/proxy/"))
        .await
        .refused(503, "no service port \"81\" found for service \"s\"");
}
