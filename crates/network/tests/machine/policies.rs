//! Network policies with real packets: pods of both kinds on both ends, by Service and by address, to the node and from
//! it; and the rules as they come and go.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use cri::{AttachRequest, NetworkKind, PodNetwork};
use serde_json::{Value, json};

use crate::alone::{LinuxPod, Machine, alone, ask_tcp, ask_udp, greet, greet_udp, rules};
use crate::cluster::{Cluster, eventually};

const WASM: &str = "10.32.64.1";
const OTHER_WASM: &str = "10.32.64.2";

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

/// What became of a connection.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Came {
    Through,
    /// The client was told at once.
    Refused,
    Otherwise(ErrorKind),
}
use Came::{Refused, Through};

fn came(outcome: std::io::Result<String>) -> Came {
    match outcome.map_err(|error| error.kind()) {
        Ok(_) => Through,
        Err(ErrorKind::HostUnreachable) => Refused,
        Err(other) => Came::Otherwise(other),
    }
}

fn from(pod: &LinuxPod, address: &str) -> Came {
    pod.run(|| came(ask_tcp(at(address))))
}

/// As a sandbox host connects for a Wasm pod.
fn from_wasm(machine: &Machine, source: &str, address: &str) -> Came {
    let source = SocketAddr::new(source.parse::<IpAddr>().unwrap(), 0);
    let connecting = async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(source)?;
        let mut stream = socket.connect(at(address)).await?;
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await?;
        Ok(text)
    };
    let patience = Duration::from_secs(5);
    came(machine.runtime.block_on(async { tokio::time::timeout(patience, connecting).await.unwrap() }))
}

struct World<'a> {
    machine: &'a Machine,
    cluster: Cluster<'a>,
    /// 10.32.0.2, .3 and .4
    a: LinuxPod,
    b: LinuxPod,
    c: LinuxPod,
}

/// Linux pods a and b and the Wasm pod w in `default`, the Linux pod c and the Wasm pod v in `other`; all but a serve at
/// 8080 and 8081.
fn with_world(test: impl FnOnce(&mut World<'_>) + Send + 'static) {
    alone(|machine| {
        let mut cluster = Cluster::start(machine, |_| {});
        cluster.namespace("default");
        cluster.namespace("other");
        for (namespace, name) in [("default", "a"), ("default", "b"), ("other", "c"), ("default", "w"), ("other", "v")]
        {
            cluster.pod(namespace, name);
        }
        let [a, b, c] = ["a", "b", "c"].map(|name| machine.linux_pod(&cluster.network, name));
        machine.attach(&cluster.network, "w", NetworkKind::Shared);
        machine.attach(&cluster.network, "v", NetworkKind::Shared);
        for port in [8080, 8081] {
            b.serve_tcp(port, "b");
            c.serve_tcp(port, "c");
            greet(TcpListener::bind((WASM, port)).unwrap(), "w");
            greet(TcpListener::bind((OTHER_WASM, port)).unwrap(), "v");
        }
        let mut world = World { machine, cluster, a, b, c };
        test(&mut world);
        world.cluster.end();
        assert_eq!(rules(), "");
    });
}

fn app(name: &str) -> Value {
    json!({"matchLabels": {"app": name}})
}

#[test]
fn ingress_to_pods_of_both_kinds() {
    with_world(|world| {
        let World { machine, cluster, a, b, c } = world;
        let all = ["10.32.0.3:8080", "10.32.0.4:8080", "10.32.64.1:8080", "10.32.64.2:8080"];
        for to in all {
            assert_eq!((from(a, to), from_wasm(machine, WASM, to), came(ask_tcp(at(to)))), (Through, Through, Through));
        }
        // nobody into `default`
        cluster.policy("deny", json!({"podSelector": {}}));
        eventually(Refused, || from(a, "10.32.0.3:8080"));
        println!("{}", rules());
        for (client, expect) in [(&*a, Refused), (&*c, Refused)] {
            assert_eq!(from(client, "10.32.0.3:8080"), expect);
            assert_eq!(from(client, "10.32.64.1:8080"), expect);
        }
        for source in [WASM, OTHER_WASM] {
            assert_eq!(from_wasm(machine, source, "10.32.0.3:8080"), Refused);
        }
        assert_eq!(from_wasm(machine, OTHER_WASM, "10.32.64.1:8080"), Refused);
        // the node always, a pod itself, and all others
        for to in all {
            assert_eq!(came(ask_tcp(at(to))), Through, "{to}");
        }
        assert_eq!(from(b, "10.32.0.3:8080"), Through);
        assert_eq!(from_wasm(machine, WASM, "10.32.64.1:8080"), Through);
        assert_eq!((from(b, "10.32.0.4:8080"), from_wasm(machine, WASM, "10.32.64.2:8080")), (Through, Through));

        // one more policy, by label and port
        let rule = json!({"from": [{"podSelector": app("a")}], "ports": [{"port": 8080}]});
        cluster.policy("allow", json!({"podSelector": {}, "ingress": [rule]}));
        eventually(Through, || from(a, "10.32.0.3:8080"));
        assert_eq!((from(a, "10.32.64.1:8080"), from(a, "10.32.0.3:8081")), (Through, Refused));
        assert_eq!((from(c, "10.32.0.3:8080"), from(a, "10.32.64.1:8081")), (Refused, Refused));
        // by namespace and name of the port
        let rule = json!({"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}],
            "ports": [{"port": "http"}]});
        cluster.policy("allow", json!({"podSelector": {}, "ingress": [rule]}));
        eventually(Through, || from(c, "10.32.0.3:8080"));
        assert_eq!((from(c, "10.32.64.1:8080"), from(c, "10.32.0.3:8081")), (Through, Refused));
        assert_eq!(from_wasm(machine, OTHER_WASM, "10.32.64.1:8080"), Through);
        assert_eq!(from_wasm(machine, OTHER_WASM, "10.32.0.3:8080"), Through);
        assert_eq!((from(a, "10.32.0.3:8080"), from_wasm(machine, WASM, "10.32.0.3:8080")), (Refused, Refused));
        // by block and range of ports
        let rule = json!({"from": [{"ipBlock": {"cidr": "10.32.0.0/30", "except": ["10.32.0.3/32"]}}],
            "ports": [{"port": 8081, "endPort": 9000}]});
        cluster.policy("allow", json!({"podSelector": {}, "ingress": [rule]}));
        eventually(Through, || from(a, "10.32.0.3:8081"));
        assert_eq!((from(a, "10.32.0.3:8080"), from(c, "10.32.0.3:8081")), (Refused, Refused));
        assert_eq!(from(b, "10.32.64.1:8081"), Refused);

        cluster.delete_policy("allow");
        eventually(Refused, || from(a, "10.32.0.3:8081"));
        assert!(rules().is_empty() || rules().contains("knarr-policy"));
        cluster.delete_policy("deny");
        eventually(Through, || from(a, "10.32.0.3:8080"));
        assert!(!rules().contains("knarr-policy"));
    });
}

#[test]
fn egress_of_pods_of_both_kinds() {
    with_world(|world| {
        let World { machine, cluster, a, b, .. } = world;
        greet(TcpListener::bind("10.32.0.1:7000").unwrap(), "node");
        cluster.policy("deny", json!({"podSelector": {}, "policyTypes": ["Egress"]}));
        eventually(Refused, || from(a, "10.32.0.3:8080"));
        for to in ["10.32.0.3:8080", "10.32.0.4:8080", "10.32.64.1:8080", "10.32.64.2:8080", "10.32.0.1:7000"] {
            assert_eq!(from(a, to), Refused, "{to}");
            if !to.starts_with(WASM) {
                assert_eq!(from_wasm(machine, WASM, to), Refused, "{to}");
            }
            // from elsewhere nobody is kept
            if to != "10.32.0.1:7000" {
                assert_eq!((came(ask_tcp(at(to))), from_wasm(machine, OTHER_WASM, to)), (Through, Through), "{to}");
            }
        }
        // names, as far as they are let
        let asks =
            || a.run(|| std::net::TcpStream::connect_timeout(&at("10.96.0.10:53"), Duration::from_secs(5)).is_ok());
        assert!(!asks());
        let dns = json!({"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
            "ports": [{"port": 53}, {"port": 53, "protocol": "UDP"}]});
        cluster.namespace("kube-system");
        let block = json!({"to": [{"ipBlock": {"cidr": "10.32.0.4/32"}}, {"ipBlock": {"cidr": "10.32.64.2/32"}}]});
        cluster.policy("deny", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [dns, block]}));
        eventually(true, asks);
        assert_eq!((from(a, "10.32.0.4:8080"), from(a, "10.32.64.2:8081")), (Through, Through));
        assert_eq!((from(a, "10.32.0.3:8080"), from(a, "10.32.0.1:7000")), (Refused, Refused));
        assert_eq!(from_wasm(machine, WASM, "10.32.0.4:8080"), Through);
        assert_eq!(from_wasm(machine, WASM, "10.32.64.2:8080"), Through);
        assert_eq!(from_wasm(machine, WASM, "10.32.0.3:8080"), Refused);
        // a Service leads where it leads
        let web = json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]});
        cluster.service("web", web);
        cluster.endpoints("web", &[("10.32.0.4".parse().unwrap(), true)]);
        eventually(Through, || from(a, "10.96.0.7:80"));
        assert_eq!(from_wasm(machine, WASM, "10.96.0.7:80"), Through);
        cluster.endpoints("web", &[(b.ip, true)]);
        eventually(Refused, || from(a, "10.96.0.7:80"));
        assert_eq!(from_wasm(machine, WASM, "10.96.0.7:80"), Refused);
    });
}

#[test]
fn replies_and_known_connections_pass() {
    with_world(|world| {
        let World { cluster, a, b, .. } = world;
        b.run(|| greet_udp(UdpSocket::bind("10.32.0.3:5353").unwrap(), "b"));
        assert!(a.run(|| ask_udp(at("10.32.0.3:5353"))).is_ok());
        let open = b.run(|| TcpListener::bind("10.32.0.3:6000").unwrap());
        let mut kept = a.run(|| TcpStream::connect(at("10.32.0.3:6000")).unwrap());
        let (mut accepted, _) = open.accept().unwrap();
        // b may call nobody, and answers all the same; nobody new may call a
        cluster.policy("b", json!({"podSelector": app("b"), "policyTypes": ["Egress"]}));
        cluster.policy("a", json!({"podSelector": app("a")}));
        eventually(Refused, || from(b, "10.32.0.4:8080"));
        assert_eq!(from(a, "10.32.0.3:8080"), Through);
        assert!(a.run(|| ask_udp(at("10.32.0.3:5353"))).is_ok());
        std::io::Write::write_all(&mut kept, b"?").unwrap();
        std::io::Write::write_all(&mut accepted, b"!").unwrap();
        let mut byte = [0; 1];
        kept.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        std::io::Read::read_exact(&mut kept, &mut byte).unwrap();
        assert_eq!(byte, *b"!");
    });
}

#[test]
fn a_new_pod_is_isolated_before_it_is_handed_out() {
    with_world(|world| {
        let World { machine, cluster, a, .. } = world;
        cluster.policy("deny", json!({"podSelector": {}}));
        eventually(Refused, || from(a, "10.32.0.3:8080"));
        for number in 0..20 {
            let uid = format!("late-{number}");
            cluster.pod("default", &uid);
            let late = machine.linux_pod(&cluster.network, &uid);
            late.serve_tcp(8080, "late");
            let address = SocketAddr::new(late.ip, 8080).to_string();
            assert_eq!((from(a, &address), came(ask_tcp(at(&address)))), (Refused, Through), "{uid}");
            machine.runtime.block_on(cluster.network.detach(&uid)).unwrap();
        }
        // one that the API server does not know is not connected
        let request = AttachRequest { pod_uid: "unknown".to_owned(), kind: NetworkKind::Shared };
        let error = machine.runtime.block_on(cluster.network.attach(request)).unwrap_err();
        assert!(error.to_string().contains("isolate pod unknown"), "{error}");
    });
}

#[test]
fn many_pods_and_policies_are_few_elements() {
    with_world(|world| {
        let World { machine, cluster, a, .. } = world;
        for number in 0..200 {
            let uid = format!("many-{number}");
            cluster.pod("default", &uid);
            machine.attach(&cluster.network, &uid, NetworkKind::Shared);
        }
        for number in 0..50 {
            let rule = json!({"from": [{"podSelector": app("a")}], "ports": [{"port": 8080 + number}]});
            cluster.policy(&format!("p{number}"), json!({"podSelector": {}, "ingress": [rule]}));
        }
        eventually(Refused, || from(a, "10.32.0.3:9090"));
        eventually(Through, || from(a, "10.32.0.3:8081"));
        let listed = rules();
        assert!(listed.is_empty() || listed.matches("8080-8129").count() == 1, "{listed}");
    });
}
