//! Scale from zero with real connections: who is held, who is passed on, and when nobody is there any more.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::idle::Unused;
use cri::NetworkKind;
use network::{SayError, Scale, ScaleError};
use serde_json::{Value, json};

use crate::alone::{Machine, alone, ask_tcp, greet};
use crate::cluster::{Cluster, eventually};

const VIP: &str = "10.96.0.7:80";

/// Says what it was asked for; the test does it, or not. What is said to the other nodes is a row of its own.
struct Asked(Mutex<Sender<(String, String, i32)>>);

/// Of a row that is said to others.
const SAID: &str = "said";

#[async_trait::async_trait]
impl Scale for Asked {
    async fn set(&self, _: &str, name: &str, version: &str, replicas: i32) -> Result<(), ScaleError> {
        let sender = self.0.lock().unwrap();
        sender.send((name.to_owned(), version.to_owned(), replicas)).unwrap();
        Ok(())
    }

    async fn say(&self, unused: &Unused) -> Result<(), SayError> {
        let sender = self.0.lock().unwrap();
        sender.send((SAID.to_owned(), unused.to_string(), 0)).unwrap();
        Ok(())
    }
}

fn cluster(machine: &Machine) -> (Cluster<'_>, Receiver<(String, String, i32)>) {
    let (sender, asked) = channel();
    let cluster = Cluster::start_with(machine, |_| {}, Arc::new(Asked(Mutex::new(sender))));
    // What an earlier process may have said is taken back.
    assert_eq!(next(&asked, 5), said(""));
    (cluster, asked)
}

fn spec() -> Value {
    json!({"clusterIP": "10.96.0.7", "type": "NodePort", "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}]})
}

fn wasm_pod(machine: &Machine, cluster: &Cluster<'_>) -> IpAddr {
    let ip = machine.attach(&cluster.network, "wasm", NetworkKind::Shared).ip();
    greet(TcpListener::bind(SocketAddr::new(ip, 8080)).unwrap(), "wasm");
    ip
}

fn next(asked: &Receiver<(String, String, i32)>, patience: u64) -> Option<(String, String, i32)> {
    asked.recv_timeout(Duration::from_secs(patience)).ok()
}

fn scaled(name: &str, version: &str, replicas: i32) -> Option<(String, String, i32)> {
    Some((name.to_owned(), version.to_owned(), replicas))
}

fn said(unused: &str) -> Option<(String, String, i32)> {
    scaled(SAID, unused, 0)
}

#[test]
fn connections_wait_for_the_first_endpoint() {
    alone(|machine| {
        let (mut cluster, asked) = cluster(machine);
        let wasm = wasm_pod(machine, &cluster);
        let client = machine.linux_pod(&cluster.network, "client");
        cluster.deployment("web", 7, 0, "1h");
        cluster.service("web", spec());
        let ask = |address: &'static str| move || ask_tcp(address.parse().unwrap());
        // Whoever comes before the rules are there is refused, as without all this.
        let early = Instant::now() + Duration::from_secs(5);
        let waiting: Vec<_> = std::thread::scope(|scope| {
            loop {
                let probe = TcpStream::connect(VIP);
                if probe.is_ok() || Instant::now() > early {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let mut waiting = vec![scope.spawn(ask(VIP)), scope.spawn(ask(VIP)), scope.spawn(ask("127.0.0.1:30080"))];
            waiting.push(scope.spawn(|| client.run(ask(VIP))));
            assert_eq!(next(&asked, 5), scaled("web", "7", 1));
            std::thread::sleep(Duration::from_millis(300));
            assert!(waiting.iter().all(|one| !one.is_finished()), "somebody did not wait");
            cluster.deployment("web", 8, 1, "1h");
            cluster.endpoints("web", &[(wasm, false)]);
            std::thread::sleep(Duration::from_millis(100));
            cluster.endpoints("web", &[(wasm, true)]);
            waiting.into_iter().map(|one| one.join().unwrap().unwrap()).collect()
        });
        // Passed on by the node.
        assert!(waiting.iter().all(|answer| answer.starts_with("wasm 10.32.")), "{waiting:?}");
        assert_eq!(next(&asked, 0), None, "once is enough");
        // The next ones go there without us: the pod sees who they are.
        eventually("wasm 10.32.0.2".to_owned(), || client.run(ask(VIP)).unwrap());
        cluster.end();
    });
}

/// The pod sees the node's address, so nobody but the activator can tell who calls.
#[test]
fn who_may_not_call_the_pods_is_not_passed_on_to_them() {
    alone(|machine| {
        let (mut cluster, asked) = cluster(machine);
        ["wasm", "a", "b"].iter().for_each(|name| cluster.pod("default", name));
        let wasm = wasm_pod(machine, &cluster);
        let [a, b] = ["a", "b"].map(|name| machine.linux_pod(&cluster.network, name));
        let app = |name: &str| json!({"matchLabels": {"app": name}});
        cluster.policy("in", json!({"podSelector": app("wasm"), "ingress": [{"from": [{"podSelector": app("a")}]}]}));
        let out = json!([{"to": [{"podSelector": app("wasm")}]}]);
        cluster.policy("out", json!({"podSelector": app("a"), "policyTypes": ["Egress"], "egress": out}));
        let direct = SocketAddr::new(wasm, 8080);
        eventually(Err(ErrorKind::HostUnreachable), || b.run(|| ask_tcp(direct)).map_err(|error| error.kind()));
        assert!(a.run(|| ask_tcp(direct)).is_ok());
        cluster.deployment("web", 7, 0, "1h");
        cluster.service("web", spec());
        let early = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(VIP).is_err() && Instant::now() < early {
            std::thread::sleep(Duration::from_millis(5));
        }
        let ask = || ask_tcp(VIP.parse().unwrap()).map_err(|error| error.kind());
        let (by_a, by_b) = std::thread::scope(|scope| {
            let (by_a, by_b) = (scope.spawn(|| a.run(ask)), scope.spawn(|| b.run(ask)));
            assert_eq!(next(&asked, 5), scaled("web", "7", 1));
            std::thread::sleep(Duration::from_millis(300));
            assert!(!by_a.is_finished() && !by_b.is_finished(), "somebody did not wait");
            cluster.deployment("web", 8, 1, "1h");
            cluster.endpoints("web", &[(wasm, true)]);
            (by_a.join().unwrap(), by_b.join().unwrap())
        });
        assert!(by_a.is_ok_and(|answer| answer.starts_with("wasm ")));
        assert_eq!(by_b, Err(ErrorKind::ConnectionReset));
        cluster.end();
    });
}

#[test]
fn nobody_for_a_while_and_it_goes_to_zero() {
    alone(|machine| {
        let (mut cluster, asked) = cluster(machine);
        let wasm = wasm_pod(machine, &cluster);
        cluster.deployment("web", 3, 1, "3s");
        cluster.service("web", spec());
        cluster.endpoints("web", &[(wasm, true)]);
        let address: SocketAddr = VIP.parse().unwrap();
        eventually(Ok("wasm 10.32.0.1".to_owned()), || ask_tcp(address).map_err(|error| error.kind()));
        // A connection that stays open keeps it awake.
        let held = TcpStream::connect(address).unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(12) {
            assert_eq!(ask_tcp(address).unwrap().split(' ').next(), Some("wasm"));
            std::thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(next(&asked, 0), None, "it was used");
        drop(held);
        let began = Instant::now();
        assert_eq!(next(&asked, 30), said("uid-web"));
        assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
        // Somebody uses it by way of another node: nothing happens here, and nothing is said again.
        assert_eq!(next(&asked, 4), None);
        // Nobody does: the control loop marks it, and who comes first is passed on and makes it used.
        cluster.marked_deployment("web", (4, 1), "3s", Some("1000"));
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(ask_tcp(address).unwrap().split(' ').next(), Some("wasm"));
        assert_eq!(next(&asked, 5), said(""));
        cluster.deployment("web", 5, 1, "3s");
        assert_eq!(next(&asked, 30), said("uid-web"));
        cluster.marked_deployment("web", (6, 1), "3s", Some("2000"));
        assert_eq!(next(&asked, 30), said("uid-web@2000"));
        // Now whoever comes waits, and that is said; the mark is taken away, and he is passed on.
        let client = std::thread::spawn(move || ask_tcp(address));
        assert_eq!(next(&asked, 5), said(""));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!client.is_finished(), "he did not wait");
        cluster.deployment("web", 7, 1, "3s");
        assert_eq!(client.join().unwrap().unwrap().split(' ').next(), Some("wasm"));
        assert_eq!(next(&asked, 30), said("uid-web"));
        cluster.marked_deployment("web", (8, 1), "3s", Some("3000"));
        assert_eq!(next(&asked, 30), said("uid-web@3000"));
        // Somebody comes while the pod goes: he waits, and wakes it again.
        let client = std::thread::spawn(move || ask_tcp(address));
        assert_eq!(next(&asked, 5), said(""));
        cluster.deployment("web", 9, 0, "3s");
        cluster.endpoints("web", &[]);
        assert_eq!(next(&asked, 5), scaled("web", "9", 1));
        cluster.deployment("web", 10, 1, "3s");
        cluster.endpoints("web", &[(wasm, true)]);
        assert_eq!(client.join().unwrap().unwrap().split(' ').next(), Some("wasm"));
        cluster.end();
    });
}

#[test]
fn a_service_that_nobody_wakes_refuses_as_ever() {
    alone(|machine| {
        let (mut cluster, asked) = cluster(machine);
        cluster.deployment("other", 1, 0, "1h");
        cluster.service("web", spec());
        let address: SocketAddr = VIP.parse().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(ask_tcp(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(next(&asked, 0), None);
        // The listener itself serves nobody: who was meant for no Service is reset.
        cluster.deployment("web", 1, 0, "1h");
        eventually(true, || TcpStream::connect(address).is_ok());
        let rules = crate::alone::rules();
        let port = rules.split("10.32.0.1 . ").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        if let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) {
            let mut direct = TcpStream::connect(("10.32.0.1", port)).unwrap();
            direct.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            assert_eq!(direct.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        } else {
            println!("not tried: needs the nft command");
        }
        cluster.end();
    });
}
