//! Addresses, namespaces, and what they can reach.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use cri::{AttachRequest, NetworkAttachment, NetworkKind, PodNetwork};
use network::Network;

use crate::alone::{Machine, alone, ask_tcp, greet, traces};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn pods_reach_each_other_and_the_host() {
    alone(|machine| {
        let network = machine.open();
        let a = machine.linux_pod(&network, "pod-a");
        let b = machine.linux_pod(&network, "pod-b");
        assert_eq!((a.ip, b.ip), (ip("10.32.0.2"), ip("10.32.0.3")));
        b.serve_tcp(80, "b");
        let address = SocketAddr::new(b.ip, 80);
        assert_eq!(a.run(|| ask_tcp(address)).unwrap(), "b 10.32.0.2");
        assert_eq!(ask_tcp(address).unwrap(), "b 10.32.0.1");
        // itself, by its own address and by loopback
        assert_eq!(b.run(|| ask_tcp(address)).unwrap(), "b 10.32.0.3");
        b.run(|| greet(TcpListener::bind("127.0.0.1:81").unwrap(), "lo"));
        assert_eq!(b.run(|| ask_tcp("127.0.0.1:81".parse().unwrap())).unwrap(), "lo 127.0.0.1");
        // a pod that is not there is known not to be
        let start = Instant::now();
        let nobody = SocketAddr::new(ip("10.32.5.5"), 80);
        assert_eq!(ask_tcp(nobody).unwrap_err().kind(), ErrorKind::HostUnreachable);
        assert_eq!(a.run(|| ask_tcp(nobody)).unwrap_err().kind(), ErrorKind::HostUnreachable);
        assert!(start.elapsed() < Duration::from_secs(1));
        machine.runtime.block_on(network.teardown()).unwrap();
    });
}

#[test]
fn pods_without_a_namespace_are_reached_from_both_sides() {
    alone(|machine| {
        let network = machine.open();
        let linux = machine.linux_pod(&network, "linux");
        linux.serve_tcp(80, "linux");
        let shared = machine.attach(&network, "wasm", NetworkKind::Shared);
        assert_eq!(shared, NetworkAttachment::Shared { ip: ip("10.32.64.1") });
        let address = SocketAddr::new(shared.ip(), 8080);
        greet(TcpListener::bind(address).unwrap(), "wasm");
        assert_eq!(linux.run(|| ask_tcp(address)).unwrap(), "wasm 10.32.0.2");
        assert_eq!(ask_tcp(address).unwrap(), "wasm 10.32.64.1");
        assert_eq!(ask_tcp(SocketAddr::new(linux.ip, 80)).unwrap(), "linux 10.32.0.1");
        let host = machine.attach(&network, "host", NetworkKind::Host);
        assert_eq!(host, NetworkAttachment::Host { ip: ip("192.0.2.2") });
        machine.runtime.block_on(network.teardown()).unwrap();
    });
}

#[test]
fn attachments_survive_a_restart_and_addresses_are_not_reused_at_once() {
    alone(|machine| {
        let network = machine.open();
        let a = machine.linux_pod(&network, "pod-a");
        assert_eq!(machine.linux_pod(&network, "pod-a").ip, a.ip);
        machine.linux_pod(&network, "pod-b");
        machine.runtime.block_on(network.detach("pod-b")).unwrap();
        machine.runtime.block_on(network.detach("pod-b")).unwrap();
        assert_eq!(machine.linux_pod(&network, "pod-c").ip, ip("10.32.0.4"));
        drop(network);

        let network = machine.open();
        let listed = machine.runtime.block_on(network.list()).unwrap();
        let uids: Vec<&str> = listed.iter().map(|row| row.pod_uid.as_str()).collect();
        assert_eq!(uids, ["pod-a", "pod-c"]);
        a.serve_tcp(80, "a");
        assert_eq!(ask_tcp(SocketAddr::new(a.ip, 80)).unwrap(), "a 10.32.0.1");
        assert_eq!(machine.linux_pod(&network, "pod-d").ip, ip("10.32.0.5"));
        // as after a reboot: the record is there, the namespace is not
        nix::mount::umount2(&a.path, nix::mount::MntFlags::MNT_DETACH).unwrap();
        let again = machine.linux_pod(&network, "pod-a");
        assert_eq!(again.ip, a.ip);
        again.serve_tcp(80, "again");
        assert_eq!(ask_tcp(SocketAddr::new(a.ip, 80)).unwrap(), "again 10.32.0.1");
        machine.runtime.block_on(network.teardown()).unwrap();
    });
}

#[test]
fn teardown_leaves_the_machine_as_it_was() {
    alone(|machine| {
        // Opening once brings the loopback device up, which stays: every machine has it so.
        let network = machine.open();
        machine.runtime.block_on(network.teardown()).unwrap();
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/all/send_redirects", "1").unwrap();
        let before = traces(machine);

        let network = machine.open();
        machine.linux_pod(&network, "pod-a");
        machine.attach(&network, "pod-b", NetworkKind::Shared);
        drop(network);
        let network = machine.open();
        assert_ne!(traces(machine), before);
        machine.runtime.block_on(network.teardown()).unwrap();
        machine.runtime.block_on(network.teardown()).unwrap();
        // the kernel destroys veth pairs in the background
        let deadline = Instant::now() + Duration::from_secs(5);
        while traces(machine) != before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(traces(machine), before);
    });
}

#[test]
fn what_is_in_the_way_is_named() {
    alone(|machine| {
        let refused = |machine: &Machine| Network::open(machine.config()).err().unwrap().to_string();
        let network = machine.open();
        let request = AttachRequest { pod_uid: "../x".into(), kind: NetworkKind::Shared };
        let error = machine.runtime.block_on(network.attach(request)).unwrap_err();
        assert_eq!(error.to_string(), "cannot attach pod \"../x\": its uid is not 1 to 63 letters, digits or dashes");
        machine.runtime.block_on(network.teardown()).unwrap();

        let mut other = machine.config();
        other.bridge_name = "other0".into();
        other.state_dir = machine.dir.path().join("other");
        let other = Network::open(other).unwrap();
        // Another of our own bridges holds the same ranges.
        assert!(
            refused(machine).starts_with("10.32.0.0/17 is in use on this machine: route 10.32.0.1/32 on link other0")
        );
        machine.runtime.block_on(other.teardown()).unwrap();
        machine.runtime.block_on(machine.open().teardown()).unwrap();
    });
}

#[test]
fn attaching_is_quick() {
    alone(|machine| {
        let network = machine.open();
        let mut taken: Vec<Duration> = Vec::new();
        for number in 0..50 {
            let start = Instant::now();
            machine.linux_pod(&network, &format!("pod-{number}"));
            taken.push(start.elapsed());
        }
        taken.sort();
        println!("attach: median {:?}, worst {:?}", taken[25], taken[49]);
        assert!(taken[25] < Duration::from_millis(100), "{taken:?}");
        machine.runtime.block_on(network.teardown()).unwrap();
    });
}
