//! The whole path from objects to packets: caches fed by hand, real DNS questions, real
//! connections by name.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::idle::{AFTER, MARK, Unused};
use cri::{NetworkKind, ServiceFrontend};
use hickory_server::proto::op::{Message, Query, ResponseCode};
use hickory_server::proto::rr::rdata::{A, CNAME};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::watcher::Event;
use network::{Caches, Clients, Network, NetworkConfig, SayError, Scale, ScaleError};
use reconcile::Reflector;
use reconcile::pod::Pod;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::alone::{LinuxPod, Machine, PATIENCE, alone, ask_tcp, greet, traces};

const DNS: &str = "10.96.0.10:53";

pub struct Cluster<'a> {
    machine: &'a Machine,
    pub network: Arc<Network>,
    services: Reflector<Service>,
    slices: Reflector<EndpointSlice>,
    deployments: Reflector<Deployment>,
    policies: Reflector<NetworkPolicy>,
    namespaces: Reflector<Namespace>,
    pods: Reflector<Pod>,
    nodes: Reflector<Node>,
    shutdown: CancellationToken,
}

/// For tests without Deployments.
struct NobodyScales;

#[async_trait::async_trait]
impl Scale for NobodyScales {
    async fn set(&self, _: &str, name: &str, _: &str, replicas: i32) -> Result<(), ScaleError> {
        panic!("{name} was scaled to {replicas}");
    }

    async fn say(&self, unused: &Unused) -> Result<(), SayError> {
        assert!(unused.is_empty(), "{unused}");
        Ok(())
    }
}

impl<'a> Cluster<'a> {
    pub fn start(machine: &'a Machine, change: impl FnOnce(&mut NetworkConfig)) -> Self {
        Self::start_with(machine, change, Arc::new(NobodyScales))
    }

    pub fn start_with(machine: &'a Machine, change: impl FnOnce(&mut NetworkConfig), scale: Arc<dyn Scale>) -> Self {
        let _inside = machine.runtime.enter();
        let mut config = machine.config();
        change(&mut config);
        let network = Network::open(config).unwrap();
        let (mut services, mut slices) = (Reflector::of_kind(), Reflector::of_kind());
        let mut deployments = Reflector::of_kind();
        let (mut policies, mut namespaces, mut pods, mut nodes) =
            (Reflector::of_kind(), Reflector::of_kind(), Reflector::of_kind(), Reflector::of_kind());
        let caches = || Caches {
            services: services.cache(),
            slices: slices.cache(),
            deployments: deployments.cache(),
            policies: policies.cache(),
            namespaces: namespaces.cache(),
            pods: pods.cache(),
            nodes: nodes.cache(),
        };
        let shutdown = CancellationToken::new();
        assert!(network.spawn_from_caches(caches(), Arc::clone(&scale), shutdown.clone()));
        assert!(!network.spawn_from_caches(caches(), scale, shutdown.clone()));
        for event in [Event::Init, Event::InitDone] {
            services.on_event(event);
        }
        for event in [Event::Init, Event::InitDone] {
            slices.on_event(event);
        }
        for event in [Event::Init, Event::InitDone] {
            deployments.on_event(event);
        }
        for event in [Event::Init, Event::InitDone] {
            policies.on_event(event);
        }
        for event in [Event::Init, Event::InitDone] {
            namespaces.on_event(event);
        }
        for event in [Event::Init, Event::InitDone] {
            pods.on_event(event);
        }
        for event in [Event::Init, Event::InitDone] {
            nodes.on_event(event);
        }
        Self { machine, network, services, slices, deployments, policies, namespaces, pods, nodes, shutdown }
    }

    /// Another node: its pods, and where it is.
    pub fn other_node(&mut self, name: &str, pod_cidr: &str, address: &str) {
        let object = json!({"metadata": {"name": name}, "spec": {"podCIDR": pod_cidr},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]}});
        self.nodes.on_event(Event::Apply(serde_json::from_value(object).unwrap()));
    }

    /// It is no more.
    pub fn other_node_gone(&mut self, name: &str) {
        let object = json!({"metadata": {"name": name}});
        self.nodes.on_event(Event::Delete(serde_json::from_value(object).unwrap()));
    }

    pub fn deployment(&mut self, name: &str, version: u32, replicas: i32, idle_after: &str) {
        self.marked_deployment(name, (version, replicas), idle_after, None);
    }

    /// As the control loop marks it.
    pub fn marked_deployment(
        &mut self,
        name: &str,
        (version, replicas): (u32, i32),
        idle_after: &str,
        mark: Option<&str>,
    ) {
        let mut annotations = json!({AFTER: idle_after});
        if let Some(mark) = mark {
            annotations[MARK] = mark.into();
        }
        let object = json!({
            "metadata": {"namespace": "default", "name": name, "resourceVersion": version.to_string(),
                "uid": format!("uid-{name}"), "annotations": annotations},
            "spec": {"replicas": replicas, "selector": {}, "template": {"metadata": {"labels": {"app": name}}}},
        });
        self.deployments.on_event(Event::Apply(serde_json::from_value(object).unwrap()));
    }

    pub fn service(&mut self, name: &str, spec: Value) {
        let object = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
        self.services.on_event(Event::Apply(serde_json::from_value(object).unwrap()));
    }

    pub fn endpoints(&mut self, service: &str, endpoints: &[(IpAddr, bool)]) {
        let endpoint = |(ip, ready): &(IpAddr, bool)| json!({"addresses": [ip], "conditions": {"ready": ready}});
        let object = json!({
            "metadata": {"namespace": "default", "name": format!("{service}-1"),
                "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        });
        self.slices.on_event(Event::Apply(serde_json::from_value(object).unwrap()));
    }

    pub fn policy(&mut self, name: &str, spec: Value) {
        let object = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
        self.policies.on_event(Event::Apply(serde_json::from_value(object).unwrap()));
    }

    pub fn delete_policy(&mut self, name: &str) {
        let object = json!({"metadata": {"namespace": "default", "name": name}});
        self.policies.on_event(Event::Delete(serde_json::from_value(object).unwrap()));
    }

    pub fn namespace(&mut self, name: &str) {
        let object = json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}});
        self.namespaces.on_event(Event::Apply(serde_json::from_value(object).unwrap()));
    }

    /// The object of a pod that is about to be attached under its name as uid.
    pub fn pod(&mut self, namespace: &str, name: &str) {
        let object = json!({"metadata": {"namespace": namespace, "name": name, "uid": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]}});
        self.pods.on_event(Event::Apply(serde_json::from_value(object).unwrap()));
    }

    pub fn end(self) {
        self.machine.runtime.block_on(self.network.teardown()).unwrap();
    }
}

fn web_spec() -> Value {
    json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]})
}

/// Asks until the answer is as expected: changes take some milliseconds.
pub fn eventually<T: PartialEq + std::fmt::Debug>(expect: T, ask: impl Fn() -> T) {
    let deadline = Instant::now() + PATIENCE;
    while ask() != expect && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(ask(), expect);
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn ask_dns(name: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(DNS).unwrap();
    socket.send(&question(name, kind)).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

fn ask_dns_by_tcp(name: &str, kind: RecordType) -> Message {
    let mut stream = TcpStream::connect(DNS).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let question = question(name, kind);
    stream.write_all(&u16::try_from(question.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&question).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    Message::from_vec(&answer).unwrap()
}

/// `code: data, data`.
fn text(message: &Message) -> String {
    let mut answers: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
    answers.sort();
    format!("{}: {}", message.metadata.response_code, answers.join(", "))
}

fn resolve(name: &str) -> String {
    text(&ask_dns(name, RecordType::A))
}

/// Uses the C library's resolver the way a program in a pod does.
fn resolv_conf_for(machine: &Machine) {
    let path = machine.dir.path().join("resolv.conf");
    std::fs::write(
        &path,
        "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local\noptions ndots:5\n",
    )
    .unwrap();
    let flags = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&path), "/etc/resolv.conf", None::<&str>, flags, None::<&str>).unwrap();
}

#[test]
fn a_service_is_reached_by_name_from_everywhere_and_follows_its_endpoints() {
    alone(|machine| {
        let mut cluster = Cluster::start(machine, |_| {});
        let linux = machine.linux_pod(&cluster.network, "linux");
        let client = machine.linux_pod(&cluster.network, "client");
        let wasm = machine.attach(&cluster.network, "wasm", NetworkKind::Shared).ip();
        linux.serve_tcp(8080, "linux");
        greet(TcpListener::bind(SocketAddr::new(wasm, 8080)).unwrap(), "wasm");
        cluster.service("web", web_spec());
        eventually("No Error: 10.96.0.7".to_owned(), || resolve("web.default.svc.cluster.local."));
        let ask = |pod: &LinuxPod| pod.run(|| ask_tcp("10.96.0.7:80".parse().unwrap()).map_err(|e| e.kind()));
        assert_eq!(ask(&client), Err(std::io::ErrorKind::ConnectionRefused));

        cluster.endpoints("web", &[(linux.ip, true), (wasm, false)]);
        let started = Instant::now();
        eventually(Ok("linux 10.32.0.3".to_owned()), || ask(&client));
        println!("endpoint to reachable: {:?}", started.elapsed());
        cluster.endpoints("web", &[(linux.ip, false), (wasm, true)]);
        eventually(Ok("wasm 10.32.0.3".to_owned()), || ask(&client));
        assert_eq!(client.run(|| resolve("web.default.svc.cluster.local.")), "No Error: 10.96.0.7");

        resolv_conf_for(machine);
        let by_name = || {
            let address = ("web", 80).to_socket_addrs().unwrap().next().unwrap();
            ask_tcp(address).unwrap()
        };
        assert_eq!(by_name(), "wasm 10.32.0.1");
        assert_eq!(client.run(by_name), "wasm 10.32.0.3");
        cluster.end();
    });
}

/// An API server that lists one Service and one EndpointSlice, nothing else, and then has nothing new.
fn api_server(backend: IpAddr) -> kube::Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| async move {
        let uri = request.uri().clone();
        let kind = match uri.path().rsplit('/').next() {
            Some("services") => "Service",
            Some("deployments") => "Deployment",
            Some("networkpolicies") => "NetworkPolicy",
            _ => "EndpointSlice",
        };
        if uri.query().unwrap_or_default().contains("watch=") {
            std::future::pending::<()>().await;
        }
        let items = match kind {
            "Service" => json!([{"metadata": {"namespace": "default", "name": "web", "uid": "u"}, "spec": web_spec()}]),
            "Deployment" | "NetworkPolicy" => json!([]),
            _ => json!([{"metadata": {"namespace": "default", "name": "web-1",
                    "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
                "endpoints": [{"addresses": [backend]}]}]),
        };
        let list = json!({"kind": format!("{kind}List"), "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
        let body = kube::client::Body::from(serde_json::to_vec(&list).unwrap());
        Ok::<_, std::convert::Infallible>(http::Response::new(body))
    });
    kube::Client::new(service, "default")
}

#[test]
fn a_client_of_the_api_server_is_all_it_takes() {
    alone(|machine| {
        let network = machine.open();
        let pod = machine.linux_pod(&network, "pod");
        pod.serve_tcp(8080, "linux");
        let _inside = machine.runtime.enter();
        let client = || api_server(pod.ip);
        let clients = Clients { services: client(), scaler: client(), node: client() };
        network.spawn(clients, CancellationToken::new());
        let ask = || ask_tcp("10.96.0.7:80".parse().unwrap()).map_err(|e| e.kind());
        eventually(Ok("linux 10.32.0.1".to_owned()), ask);
        eventually("No Error: 10.96.0.7".to_owned(), || resolve("web.default.svc.cluster.local."));
        machine.runtime.block_on(network.teardown()).unwrap();
    });
}

#[test]
fn dns_answers_by_udp_and_tcp() {
    alone(|machine| {
        let mut cluster = Cluster::start(machine, |_| {});
        cluster.service("web", web_spec());
        cluster.service("db", json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}));
        let many: Vec<_> = (1..=60).map(|last| (IpAddr::V4(Ipv4Addr::new(10, 32, 1, last)), true)).collect();
        cluster.endpoints("db", &many);
        eventually(60, || ask_dns_by_tcp("db.default.svc.cluster.local.", RecordType::A).answers.len());
        eventually("No Error: 10.96.0.7".to_owned(), || resolve("WEB.default.SVC.cluster.local."));

        let message = ask_dns("web.default.svc.cluster.local.", RecordType::A);
        assert!(message.metadata.authoritative && message.metadata.recursion_available);
        assert_eq!(message.answers[0].ttl, 5);
        let message = ask_dns("_http._tcp.web.default.svc.cluster.local.", RecordType::SRV);
        assert_eq!(text(&message), "No Error: 0 100 80 web.default.svc.cluster.local.");
        assert_eq!(message.additionals[0].data, RData::A(A(Ipv4Addr::new(10, 96, 0, 7))));
        let message = ask_dns("7.0.96.10.in-addr.arpa.", RecordType::PTR);
        assert_eq!(text(&message), "No Error: web.default.svc.cluster.local.");

        // no such record, no such name: with the start of authority, so that it is remembered
        for (name, code) in [("web", ResponseCode::NoError), ("nope", ResponseCode::NXDomain)] {
            let message = ask_dns(&format!("{name}.default.svc.cluster.local."), RecordType::AAAA);
            assert_eq!(message.metadata.response_code, code);
            assert_eq!((message.answers.len(), message.authorities.len()), (0, 1));
        }
        // too long for a datagram: the client asks again by TCP
        let message = ask_dns("db.default.svc.cluster.local.", RecordType::A);
        assert!(message.metadata.truncation && message.answers.len() < 60);
        // no upstream: an immediate failure
        assert_eq!(resolve("example.org."), "Server Failure: ");
        cluster.end();
    });
}

/// A name server that knows one address for every name, but asks of `silent.` get no answer.
fn upstream(address: &str) -> SocketAddr {
    let socket = UdpSocket::bind(address).unwrap();
    let bound = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let name = query.queries[0].name().clone();
            if name.to_ascii().starts_with("silent") {
                continue;
            }
            let mut answer = query.into_response();
            answer.add_answer(Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(198, 51, 100, 7)))));
            socket.send_to(&answer.to_vec().unwrap(), client).unwrap();
        }
    });
    bound
}

#[test]
fn other_names_are_asked_upstream_and_a_dead_upstream_is_noticed() {
    alone(|machine| {
        let server = {
            // Loopback is down in a fresh namespace until the network is open.
            machine.runtime.block_on(machine.open().teardown()).unwrap();
            upstream("127.0.0.1:0")
        };
        let mut cluster = Cluster::start(machine, |config| {
            // its own address would be a loop, and nobody listens at the second
            config.upstream_dns = vec![DNS.parse().unwrap(), "127.0.0.1:9".parse().unwrap(), server];
        });
        cluster.service("out", json!({"type": "ExternalName", "externalName": "example.org"}));
        assert_eq!(resolve("example.org."), "No Error: 198.51.100.7");
        let expect = [
            RData::CNAME(CNAME(Name::from_ascii("example.org.").unwrap())),
            RData::A(A(Ipv4Addr::new(198, 51, 100, 7))),
        ];
        eventually(expect.to_vec(), || {
            let message = ask_dns("out.default.svc.cluster.local.", RecordType::A);
            message.answers.into_iter().map(|record| record.data).collect()
        });
        let start = Instant::now();
        assert_eq!(resolve("silent.example.org."), "Server Failure: ");
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        let start = Instant::now();
        assert_eq!(resolve("other.example.org."), "Server Failure: ");
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
        cluster.end();
    });
}

#[test]
fn rules_outlive_the_process_and_teardown_leaves_nothing() {
    alone(|machine| {
        machine.runtime.block_on(machine.open().teardown()).unwrap();
        let before = traces(machine);
        let mut cluster = Cluster::start(machine, |_| {});
        let linux = machine.linux_pod(&cluster.network, "linux");
        linux.serve_tcp(8080, "linux");
        cluster.service("web", web_spec());
        cluster.endpoints("web", &[(linux.ip, true)]);
        let ask = || ask_tcp("10.96.0.7:80".parse().unwrap()).map_err(|e| e.kind());
        eventually(Ok("linux 10.32.0.1".to_owned()), ask);
        cluster.shutdown.cancel();
        drop(cluster);
        assert_eq!(ask(), Ok("linux 10.32.0.1".to_owned()));

        // the next process: rules are kept until the caches are filled, then replaced
        let mut second = None;
        eventually(true, || UdpSocket::bind(DNS).is_ok());
        second.replace(Cluster::start(machine, |_| {}));
        eventually(Err(std::io::ErrorKind::ConnectionRefused), ask);
        second.take().unwrap().end();
        // the server thread holds the pod's namespace, and with it the veth
        let without_links = |text: String| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        eventually(without_links(before.clone()), || without_links(traces(machine)));
    });
}

#[test]
fn a_used_dns_port_is_named() {
    alone(|machine| {
        let first = machine.open();
        let _inside = machine.runtime.enter();
        let error = Network::open(machine.config()).err().unwrap();
        assert_eq!(error.to_string(), "the DNS server cannot listen on 10.96.0.10:53: another program does");
        drop(_inside);
        machine.runtime.block_on(first.teardown()).unwrap();
    });
}

#[test]
fn runtimes_are_told_what_the_kernel_does() {
    alone(|machine| {
        let mut cluster = Cluster::start(machine, |_| {});
        let told = cluster.network.service_table();
        let told = || {
            let line = |one: &ServiceFrontend| {
                let name = one.name.as_deref().unwrap_or("-");
                format!("{name} {} {:?}", one.address, one.endpoints)
            };
            told.borrow().frontends.iter().map(line).collect::<Vec<_>>()
        };
        let pods = ["10.32.0.2", "10.32.0.3"].map(|ip| ip.parse::<IpAddr>().unwrap());
        cluster.service("web", web_spec());
        cluster.endpoints("web", &[(pods[0], true), (pods[1], true)]);
        eventually(vec!["web.default 10.96.0.7:80 [10.32.0.2:8080, 10.32.0.3:8080]".to_owned()], told);
        cluster.endpoints("web", &[(pods[0], false), (pods[1], true)]);
        eventually(vec!["web.default 10.96.0.7:80 [10.32.0.3:8080]".to_owned()], told);
        let mut sticky = web_spec();
        sticky["sessionAffinity"] = "ClientIP".into();
        cluster.service("web", sticky);
        eventually(vec![], told);
        cluster.end();
    });
}
