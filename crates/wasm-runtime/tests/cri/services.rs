//! Pods of one host that call each other by a Service's address and name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cri::{CallCounts, DnsConfig, NetworkAttachment, RuntimeService, ServiceFrontend, ServiceTable};
use tokio::sync::watch;

use crate::guests::guest;
use crate::world::{World, free_port, get};

const BY_NAME: &str = "10.96.0.7:80";
/// The caller's localhost is its own: where no Service is, the kernel refuses at once.
const BY_ADDRESS: &str = "127.0.1.7:80";
const PATIENCE: Duration = Duration::from_secs(10);

fn table(endpoints: &[u16]) -> Arc<ServiceTable> {
    let endpoints: Vec<_> = endpoints.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect();
    let frontend = |address: &str, name: Option<&str>| ServiceFrontend {
        address: address.parse().unwrap(),
        name: name.map(str::to_owned),
        endpoints: endpoints.clone(),
    };
    let frontends = vec![frontend(BY_ADDRESS, None), frontend(BY_NAME, Some("backend.shop"))];
    Arc::new(ServiceTable { frontends: if endpoints.is_empty() { vec![] } else { frontends } })
}

async fn counts(world: &World, name: &str) -> CallCounts {
    let stats = world.runtime.list_stats().await.unwrap();
    stats.iter().find(|one| one.name == name).unwrap().calls.unwrap()
}

/// Asks until the host was told what makes the answer this one.
async fn eventually(port: u16, path: &str, status: u16, text: &str) {
    let began = Instant::now();
    loop {
        let (got, answer) = get(port, path).await;
        if got == status && answer.contains(text) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{path}: {answer}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_service_leads_to_pods_of_the_host_in_process() {
    let Some(bytes) = guest("hello-http") else { return };
    let (tell, told) = watch::channel(Arc::default());
    let world = World::with_services(told).await;
    let (caller, first, second) = (free_port(), free_port(), free_port());
    let mut pod = world.pod("caller");
    pod.network = NetworkAttachment::Namespace { ip: [127, 0, 0, 1].into(), path: "/proc/self/ns/net".into() };
    // Nobody is there to be asked for names.
    let searches = vec!["shop.svc.cluster.local".to_owned(), "svc.cluster.local".to_owned()];
    pod.dns = DnsConfig { searches, options: vec!["ndots:5".to_owned()], ..DnsConfig::default() };
    world.run(pod, world.container("caller", &bytes, caller)).await;
    for (name, port) in [("first", first), ("second", second)] {
        let mut container = world.container(name, &bytes, port);
        container.env = vec![("HOSTNAME".to_owned(), name.to_owned())];
        world.run(world.pod(name), container).await;
    }

    tell.send(table(&[first])).unwrap();
    eventually(caller, "/call?url=http://127.0.1.7/", 200, "Hello from first").await;
    let before = counts(&world, "first").await;
    for host in ["127.0.1.7", "127.0.1.7:80", "backend", "backend.shop", "backend.shop.svc.cluster.local"] {
        let (status, answer) = get(caller, &format!("/call?url=http://{host}/")).await;
        assert!(status == 200 && answer.contains("Hello from first"), "{host}: {answer}");
    }
    let after = counts(&world, "first").await;
    assert_eq!((after.begun - before.begun, after.in_process - before.in_process), (5, 5));
    assert_eq!(counts(&world, "caller").await.in_process, 0, "its requests came over connections");
    assert_eq!(counts(&world, "second").await.begun, 0);

    // Other ports of the address, and what does not speak plain HTTP, are the kernel's.
    for url in ["http://127.0.1.7:81/", "https://127.0.1.7:80/"] {
        let (status, answer) = get(caller, &format!("/call?url={url}")).await;
        assert!(status == 502 && answer.contains("cannot call"), "{url}: {answer}");
    }

    tell.send(table(&[first, second])).unwrap();
    eventually(caller, "/call?url=http://backend/", 200, "Hello from second").await;
    let before = [counts(&world, "first").await.in_process, counts(&world, "second").await.in_process];
    for _ in 0..64 {
        assert_eq!(get(caller, "/call?url=http://backend/").await.0, 200);
    }
    let after = [counts(&world, "first").await.in_process, counts(&world, "second").await.in_process];
    let each = [after[0] - before[0], after[1] - before[1]];
    assert!(each[0] + each[1] == 64 && each.iter().all(|count| *count > 10), "{each:?}");

    tell.send(table(&[])).unwrap();
    eventually(caller, "/call?url=http://127.0.1.7/", 502, "cannot call").await;
    world.clean().await;
}

/// As after a restart of the agent: the host that was there is told again.
#[tokio::test]
async fn a_host_is_told_by_the_next_agent_too() {
    let Some(bytes) = guest("hello-http") else { return };
    let (tell, told) = watch::channel(Arc::default());
    let mut world = World::with_services(told).await;
    let (caller, first) = (free_port(), free_port());
    let mut pod = world.pod("caller");
    pod.network = NetworkAttachment::Namespace { ip: [127, 0, 0, 1].into(), path: "/proc/self/ns/net".into() };
    world.run(pod, world.container("caller", &bytes, caller)).await;
    world.run(world.pod("first"), world.container("first", &bytes, first)).await;
    tell.send(table(&[first])).unwrap();
    eventually(caller, "/call?url=http://127.0.1.7/healthz", 200, "ok").await;
    drop(tell);
    // Without an agent, and with one that does not know yet, it goes on as it was.
    let (tell, told) = watch::channel(Arc::default());
    world.reopen_with_services(told).await;
    assert_eq!(get(caller, "/call?url=http://127.0.1.7/healthz").await.0, 200);
    tell.send(Arc::new(ServiceTable { frontends: vec![] })).unwrap();
    eventually(caller, "/call?url=http://127.0.1.7/healthz", 502, "cannot call").await;
    world.clean().await;
}
