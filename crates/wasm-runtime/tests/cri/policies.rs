//! Pods of one host that call each other where network policies let them, and not where these are silent.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cri::{
    DnsConfig, NetworkAttachment, PolicyGrant, PolicyGroups, PolicyTable, RuntimeService, ServiceFrontend, ServiceTable,
};
use tokio::sync::watch;

use crate::guests::guest;
use crate::world::{World, free_port, get};

const CALLER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
const CALLEE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
/// By a Service, whose own address leads nowhere in this test.
const PATH: &str = "/call?url=http://backend.shop/healthz";
const PATIENCE: Duration = Duration::from_secs(10);

/// The callee lets the caller in, to these ports.
fn policies(ports: &[(u16, u16)]) -> Arc<PolicyTable> {
    let groups = |ingress, peer| PolicyGroups { ingress, egress: None, peers: vec![0, peer] };
    let grant = PolicyGrant { target: 1, peer: 7, ports: ports.to_vec() };
    Arc::new(PolicyTable {
        is_enforced: true,
        revision: 1,
        pods: BTreeMap::from([(CALLER, groups(None, 7)), (CALLEE, groups(Some(1), 8))]),
        ingress: if ports.is_empty() { vec![] } else { vec![grant] },
        egress: vec![],
    })
}

async fn eventually(port: u16, status: u16) {
    let began = Instant::now();
    loop {
        let (got, answer) = get(port, PATH).await;
        if got == status {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{answer}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn in_process(world: &World) -> u64 {
    let stats = world.runtime.list_stats().await.unwrap();
    stats.iter().find(|one| one.name == "callee").unwrap().calls.unwrap().in_process
}

#[tokio::test]
async fn what_policies_do_not_grant_is_not_called_in_process() {
    let Some(bytes) = guest("hello-http") else { return };
    let (tell_services, services) = watch::channel(Arc::default());
    let (tell, told) = watch::channel(policies(&[]));
    let world = World::with_tables(services, told).await;
    let (caller, callee) = (free_port(), free_port());
    let searches = vec!["shop.svc.cluster.local".to_owned(), "svc.cluster.local".to_owned()];
    for (name, ip, port) in [("caller", CALLER, caller), ("callee", CALLEE, callee)] {
        let mut pod = world.pod(name);
        pod.network = NetworkAttachment::Shared { ip };
        let options = vec!["ndots:5".to_owned()];
        pod.dns = DnsConfig { searches: searches.clone(), options, ..DnsConfig::default() };
        world.run(pod, world.container(name, &bytes, port)).await;
    }
    let endpoints = vec![(CALLEE, callee).into()];
    let address = "10.96.0.7:80".parse().unwrap();
    let frontend = ServiceFrontend { address, name: Some("backend.shop".to_owned()), endpoints };
    tell_services.send(Arc::new(ServiceTable { frontends: vec![frontend] })).unwrap();
    // Both pods were started while there were policies: before the host is told of any, it is careful.
    for _ in 0..20 {
        assert_eq!(get(caller, PATH).await.0, 502);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tell.send(policies(&[(callee, callee)])).unwrap();
    eventually(caller, 200).await;
    let before = in_process(&world).await;
    assert_eq!(get(caller, PATH).await.0, 200);
    assert_eq!(in_process(&world).await, before + 1);

    let other = if callee == 1 { 2 } else { callee - 1 };
    for silent in [policies(&[(other, other)]), policies(&[])] {
        tell.send(silent).unwrap();
        eventually(caller, 502).await;
        tell.send(policies(&[(1, u16::MAX)])).unwrap();
        eventually(caller, 200).await;
    }
    tell.send(policies(&[])).unwrap();
    eventually(caller, 502).await;
    tell.send(Arc::default()).unwrap();
    eventually(caller, 200).await;
    world.clean().await;
}
