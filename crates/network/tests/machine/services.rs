//! Services with real packets: every pair of client and endpoint, change, refusal, teardown.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use cri::NetworkKind;
use network::service_proxy::{Affinity, Backend, Backends, Frontend, IpProtocol, ServiceProxy, Tables, remove};

use crate::alone::{LinuxPod, Machine, alone, ask_tcp, ask_udp, greet, greet_udp, rules};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);

fn vip(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(VIP), port)
}

fn v4(address: &str) -> Ipv4Addr {
    address.parse().unwrap()
}

/// `(protocol, port, backends)` at [`VIP`].
type Row<'a> = (IpProtocol, u16, &'a [(&'a str, u16)]);

fn tables(rows: &[Row<'_>]) -> Tables {
    let row = |(protocol, port, backends): &Row<'_>| {
        let list = backends.iter().map(|(address, port)| Backend { address: v4(address), port: *port }).collect();
        let frontend = Frontend { address: VIP, protocol: *protocol, port: *port };
        (frontend, Backends { affinity: Affinity::None, list })
    };
    Tables { frontends: rows.iter().map(row).collect() }
}

/// Two Linux pods (10.32.0.2 and .3) and a Wasm address (10.32.64.1), the proxy, and no route but
/// ours.
fn with_pods(test: impl FnOnce(&Machine, &mut ServiceProxy, &LinuxPod, &LinuxPod) + Send + 'static) {
    alone(|machine| {
        let network = machine.open();
        let a = machine.linux_pod(&network, "pod-a");
        let b = machine.linux_pod(&network, "pod-b");
        machine.attach(&network, "wasm", NetworkKind::Shared);
        let mut proxy = ServiceProxy::open(&machine.config()).unwrap();
        test(machine, &mut proxy, &a, &b);
        remove(&machine.config()).unwrap();
        remove(&machine.config()).unwrap();
        assert_eq!(rules(), "");
        machine.runtime.block_on(network.teardown()).unwrap();
    });
}

#[test]
fn every_client_reaches_every_endpoint_by_tcp() {
    with_pods(|_, proxy, a, b| {
        b.serve_tcp(8080, "linux");
        greet(TcpListener::bind("10.32.64.1:8080").unwrap(), "wasm");
        proxy
            .apply(tables(&[
                (IpProtocol::Tcp, 80, &[("10.32.0.3", 8080)]),
                (IpProtocol::Tcp, 81, &[("10.32.64.1", 8080)]),
            ]))
            .unwrap();
        println!("{}", rules());
        assert_eq!(a.run(|| ask_tcp(vip(80))).unwrap(), "linux 10.32.0.2", "pod to Linux pod");
        assert_eq!(a.run(|| ask_tcp(vip(81))).unwrap(), "wasm 10.32.0.2", "pod to Wasm pod");
        assert_eq!(ask_tcp(vip(80)).unwrap(), "linux 10.32.0.1", "host to Linux pod");
        assert_eq!(ask_tcp(vip(81)).unwrap(), "wasm 10.32.0.1", "host to Wasm pod");
        // hairpin: a pod by its own Service; it sees the node's address, or it would answer itself
        assert_eq!(b.run(|| ask_tcp(vip(80))).unwrap(), "linux 10.32.0.1", "pod to itself");
    });
}

#[test]
fn every_client_reaches_every_endpoint_by_udp() {
    with_pods(|_, proxy, a, b| {
        b.run(|| greet_udp(UdpSocket::bind("10.32.0.3:5353").unwrap(), "linux"));
        greet_udp(UdpSocket::bind("10.32.64.1:5353").unwrap(), "wasm");
        proxy
            .apply(tables(&[
                (IpProtocol::Udp, 53, &[("10.32.0.3", 5353)]),
                (IpProtocol::Udp, 54, &[("10.32.64.1", 5353)]),
            ]))
            .unwrap();
        assert_eq!(a.run(|| ask_udp(vip(53))).unwrap(), "linux 10.32.0.2");
        assert_eq!(a.run(|| ask_udp(vip(54))).unwrap(), "wasm 10.32.0.2");
        assert_eq!(ask_udp(vip(53)).unwrap(), "linux 10.32.0.1");
        assert_eq!(ask_udp(vip(54)).unwrap(), "wasm 10.32.0.1");
        assert_eq!(b.run(|| ask_udp(vip(53))).unwrap(), "linux 10.32.0.1");
    });
}

#[test]
fn connections_are_spread_and_an_added_or_removed_endpoint_counts_at_once() {
    with_pods(|_, proxy, a, b| {
        a.serve_tcp(8080, "a");
        b.serve_tcp(8080, "b");
        let both: &[_] = &[("10.32.0.2", 8080), ("10.32.0.3", 8080)];
        proxy.apply(tables(&[(IpProtocol::Tcp, 80, both)])).unwrap();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..100 {
            *seen.entry(ask_tcp(vip(80)).unwrap()).or_default() += 1;
        }
        assert!(seen.len() == 2 && seen.values().all(|count| *count > 20), "{seen:?}");
        // the changed half of 16 buckets: 8 deleted, 8 added
        assert_eq!(proxy.apply(tables(&[(IpProtocol::Tcp, 80, &both[1..])])).unwrap(), 16);
        for _ in 0..20 {
            assert_eq!(ask_tcp(vip(80)).unwrap(), "b 10.32.0.1");
        }
        assert_eq!(proxy.apply(tables(&[(IpProtocol::Tcp, 80, &both[1..])])).unwrap(), 0);
    });
}

#[test]
fn a_client_sticks_to_its_endpoint_when_asked() {
    with_pods(|_, proxy, a, b| {
        a.serve_tcp(8080, "a");
        b.serve_tcp(8080, "b");
        let mut tables = tables(&[(IpProtocol::Tcp, 80, &[("10.32.0.2", 8080), ("10.32.0.3", 8080)])]);
        tables.frontends.values_mut().for_each(|backends| backends.affinity = Affinity::ClientIp);
        proxy.apply(tables).unwrap();
        let first = ask_tcp(vip(80)).unwrap();
        for _ in 0..30 {
            assert_eq!(ask_tcp(vip(80)).unwrap(), first);
        }
    });
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    with_pods(|_, proxy, a, b| {
        b.serve_tcp(8080, "linux");
        let refused = || {
            let start = Instant::now();
            let kind = ask_tcp(vip(80)).unwrap_err().kind();
            assert!(start.elapsed() < Duration::from_secs(1));
            assert_eq!(kind, ErrorKind::ConnectionRefused);
            // on the node itself the filter's refusal is the answer to sendto
            let kind = ask_udp(vip(80)).unwrap_err().kind();
            assert!(matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied), "{kind}");
        };
        refused();
        a.run(refused);
        proxy.apply(tables(&[(IpProtocol::Tcp, 80, &[("10.32.0.3", 8080)])])).unwrap();
        assert_eq!(a.run(|| ask_tcp(vip(80))).unwrap(), "linux 10.32.0.2");
        proxy.apply(tables(&[])).unwrap();
        refused();
        a.run(refused);
    });
}

#[test]
fn udp_flows_leave_an_endpoint_that_is_gone() {
    with_pods(|_, proxy, a, b| {
        a.run(|| greet_udp(UdpSocket::bind("10.32.0.2:5353").unwrap(), "a"));
        b.run(|| greet_udp(UdpSocket::bind("10.32.0.3:5353").unwrap(), "b"));
        proxy.apply(tables(&[(IpProtocol::Udp, 53, &[("10.32.0.2", 5353)])])).unwrap();
        let client = UdpSocket::bind("0.0.0.0:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client.connect(vip(53)).unwrap();
        let ask = || {
            client.send(b"?").unwrap();
            let mut buffer = [0; 64];
            let length = client.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        assert_eq!(ask(), "a 10.32.0.1");
        proxy.apply(tables(&[(IpProtocol::Udp, 53, &[("10.32.0.3", 5353)])])).unwrap();
        assert_eq!(ask(), "b 10.32.0.1");
    });
}

#[test]
fn the_api_server_on_loopback_is_reached() {
    with_pods(|_, proxy, a, _| {
        greet(TcpListener::bind("127.0.0.1:6443").unwrap(), "api");
        proxy.apply(tables(&[(IpProtocol::Tcp, 443, &[("127.0.0.1", 6443)])])).unwrap();
        assert_eq!(ask_tcp(vip(443)).unwrap(), "api 10.32.0.1");
        assert_eq!(a.run(|| ask_tcp(vip(443))).unwrap(), "api 10.32.0.2");
    });
}

#[test]
fn pods_reach_nothing_else_on_the_nodes_loopback() {
    with_pods(|_, _, a, _| {
        let private = UdpSocket::bind("127.0.0.1:6443").unwrap();
        private.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        // A hostile pod sends what it addresses to 127.0.0.1 to the node.
        let hostile = a.run(|| {
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
            ip("route delete local 127.0.0.0/8 dev lo table local")
                && ip("route delete local 127.0.0.1/32 dev lo table local")
                && ip("route add 127.0.0.1/32 via 10.32.0.1 dev eth0 onlink src 10.32.0.2")
        });
        if !hostile {
            println!("skipped: needs the ip command");
            return;
        }
        let arrives = || {
            let client = a.run(|| UdpSocket::bind("10.32.0.2:0").unwrap());
            client.send_to(b"?", "127.0.0.1:6443").unwrap();
            private.recv(&mut [0; 8]).is_ok()
        };
        assert!(!arrives());
        // The rules are what keeps it out.
        let flushed = std::process::Command::new("nft").args(["flush", "chain", "ip", "knarr", "from-pods"]).status();
        if flushed.is_ok_and(|status| status.success()) {
            assert!(arrives());
        }
    });
}

/// Connects from a given source address, as a Wasm pod's host process does.
fn ask_from(machine: &Machine, source: &str, address: SocketAddr) -> String {
    let source: IpAddr = source.parse().unwrap();
    let connecting = async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source, 0)).unwrap();
        let mut text = String::new();
        let mut stream = socket.connect(address).await.unwrap();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.unwrap();
        text
    };
    machine.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), connecting).await.unwrap() })
}

#[test]
fn a_pod_without_a_namespace_is_a_client_under_its_own_address() {
    with_pods(|machine, proxy, _, b| {
        b.serve_tcp(8080, "linux");
        greet(TcpListener::bind("10.32.64.1:8080").unwrap(), "wasm");
        let rows: [Row<'_>; 2] =
            [(IpProtocol::Tcp, 80, &[("10.32.0.3", 8080)]), (IpProtocol::Tcp, 81, &[("10.32.64.1", 8080)])];
        proxy.apply(tables(&rows)).unwrap();
        assert_eq!(ask_from(machine, "10.32.64.1", vip(80)), "linux 10.32.64.1");
        assert_eq!(ask_from(machine, "10.32.64.1", vip(81)), "wasm 10.32.64.1", "itself, by its Service");
        assert_eq!(ask_from(machine, "10.32.64.1", "10.32.0.3:8080".parse().unwrap()), "linux 10.32.64.1");
    });
}

/// Runs Debian's `ip`; false where that is not installed.
fn ip(arguments: &str) -> bool {
    match std::process::Command::new("ip").args(arguments.split(' ')).status() {
        Ok(status) => {
            assert!(status.success(), "ip {arguments}");
            true
        }
        Err(_) => false,
    }
}

#[test]
fn pods_leave_the_cluster_under_the_nodes_address() {
    with_pods(|machine, _, a, b| {
        // 198.51.100.1 is "outside": an address behind pod b that no range of ours covers.
        if !b.run(|| ip("address add 198.51.100.1/32 dev lo")) {
            println!("skipped: needs the ip command");
            return;
        }
        ip("route add 198.51.100.1/32 dev knp0a200003 src 10.32.0.1");
        ip("address add 203.0.113.9/32 dev knp0a200003");
        b.run(|| greet(TcpListener::bind("198.51.100.1:80").unwrap(), "outside"));
        let outside: SocketAddr = "198.51.100.1:80".parse().unwrap();
        assert_eq!(a.run(|| ask_tcp(outside)).unwrap(), "outside 203.0.113.9");
        assert_eq!(ask_from(machine, "10.32.64.1", outside), "outside 203.0.113.9");
    });
}

#[test]
fn node_ports_answer_on_loopback_too() {
    with_pods(|_, proxy, _, b| {
        b.serve_tcp(8080, "linux");
        let mut tables = tables(&[(IpProtocol::Tcp, 30080, &[("10.32.0.3", 8080)])]);
        let (_, backends) = tables.frontends.pop_first().unwrap();
        let frontend = Frontend { address: Ipv4Addr::LOCALHOST, protocol: IpProtocol::Tcp, port: 30080 };
        tables.frontends.insert(frontend, backends);
        proxy.apply(tables).unwrap();
        assert_eq!(ask_tcp("127.0.0.1:30080".parse().unwrap()).unwrap(), "linux 10.32.0.1");
    });
}

#[test]
fn a_restart_keeps_rules_and_connections_and_a_flush_is_repaired() {
    with_pods(|machine, proxy, _, b| {
        b.serve_tcp(8080, "linux");
        let wanted = tables(&[(IpProtocol::Tcp, 80, &[("10.32.0.3", 8080)])]);
        proxy.apply(wanted.clone()).unwrap();
        let mut next = ServiceProxy::open(&machine.config()).unwrap();
        assert!(next.is_stale());
        assert_eq!(ask_tcp(vip(80)).unwrap(), "linux 10.32.0.1");
        next.apply(wanted.clone()).unwrap();
        assert_eq!(ask_tcp(vip(80)).unwrap(), "linux 10.32.0.1");

        remove(&machine.config()).unwrap();
        next.check().unwrap();
        assert!(next.is_stale());
        next.apply(wanted.clone()).unwrap();
        assert_eq!(ask_tcp(vip(80)).unwrap(), "linux 10.32.0.1");
        // without a check the failing change notices by itself
        remove(&machine.config()).unwrap();
        next.apply(tables(&[(IpProtocol::Tcp, 81, &[("10.32.0.3", 8080)])])).unwrap();
        assert_eq!(ask_tcp(vip(81)).unwrap(), "linux 10.32.0.1");
    });
}

#[test]
fn ten_thousand_services_load_in_seconds_and_one_more_at_once() {
    with_pods(|_, proxy, _, b| {
        b.serve_tcp(8080, "linux");
        let list = vec![Backend { address: v4("10.32.0.3"), port: 8080 }];
        let frontend = |number: u32| Frontend {
            address: Ipv4Addr::from(u32::from(v4("10.96.16.0")) + number),
            protocol: IpProtocol::Tcp,
            port: 80,
        };
        let row = |number| (frontend(number), Backends { affinity: Affinity::None, list: list.clone() });
        let mut tables = Tables { frontends: (0..10_000).map(row).collect() };
        let start = Instant::now();
        assert_eq!(proxy.apply(tables.clone()).unwrap(), 160_000);
        let all = start.elapsed();
        tables.frontends.extend([row(10_000)]);
        let start = Instant::now();
        assert_eq!(proxy.apply(tables).unwrap(), 16);
        println!("10,000 Services: {all:?}; one more: {:?}", start.elapsed());
        let last = SocketAddr::new(IpAddr::V4(frontend(10_000).address), 80);
        assert_eq!(ask_tcp(last).unwrap(), "linux 10.32.0.1");
    });
}
