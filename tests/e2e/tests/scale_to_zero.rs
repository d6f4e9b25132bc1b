//! A Deployment without replicas wakes for a connection to its Service, and sleeps again when nobody comes.

use std::time::{Duration, Instant};

use e2e::{Cluster, eventually};

#[test]
fn a_deployment_wakes_for_connections_and_sleeps_again() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    // Once by hand, so that the component is compiled.
    cluster.kubectl("create deployment web --image=registry.local/hello:v1 --port=8080").ok();
    cluster.wait_rollout("web");
    cluster.kubectl("expose deployment web --port=80 --target-port=8080").ok();
    cluster.kubectl("scale deployment web --replicas=0").ok();
    // Without the annotation it is as everywhere.
    eventually("the Service refuses", || match cluster.ask("web", 80, "/") {
        Err(error) if error.to_string().contains("refused") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.kubectl("annotate deployment web knarr.dev/scale-to-zero-after=5s").ok();
    wakes(&cluster);
    let first = cluster.kubectl("get pods -l app=web -o name").ok();
    assert_eq!(first.lines().count(), 1, "{first}");
    // Who asks keeps it awake.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(15) {
        assert!(cluster.ask("web", 80, "/").expect("the Service answers").body.contains("Hello"));
        std::thread::sleep(Duration::from_millis(700));
    }
    assert_eq!(cluster.kubectl("get pods -l app=web -o name").ok(), first);
    sleeps(&cluster);
    wakes(&cluster);
    sleeps(&cluster);
    // It follows whoever scales it.
    cluster.kubectl("annotate deployment web knarr.dev/scale-to-zero-after=never --overwrite").ok();
    wakes(&cluster);
    cluster.kubectl("scale deployment web --replicas=2").ok();
    cluster.wait_value("deployment/web", ".status.readyReplicas", "2");
}

/// The first connection waits, and so do those beside it; none is refused.
fn wakes(cluster: &Cluster) {
    eventually("somebody holds connections", || {
        let first = cluster.ask("web", 80, "/");
        first.map_err(|error| error.to_string())
    });
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| cluster.ask("web", 80, "/"))).collect();
        asking.into_iter().map(|one| one.join().expect("it asks")).collect()
    });
    assert!(answers.iter().all(|one| one.as_ref().is_ok_and(|answer| answer.body.contains("Hello"))), "{answers:?}");
}

fn sleeps(cluster: &Cluster) {
    eventually("nobody is left", || {
        let pods = cluster.kubectl("get pods -l app=web -o name").ok();
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    });
    assert_eq!(cluster.kubectl("get deployment web -o jsonpath={.spec.replicas}").ok(), "0");
}
