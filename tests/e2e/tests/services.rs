//! A Wasm pod that calls another by its Service is not sent over the network. What is counted says so: a request that
//! came over a connection is not counted as one in process.

use e2e::{Cluster, eventually};

const CALLS: u64 = 20;

/// The sum of a metric's lines that say so, over the pods whose names begin so.
fn counted(cluster: &Cluster, metric: &str, pods: &str) -> u64 {
    let node = cluster.kubectl("get nodes -o jsonpath={.items[0].metadata.name}").ok();
    let metrics = cluster.kubectl(&format!("get --raw /api/v1/nodes/{node}/proxy/metrics/resource")).ok();
    let (name, label) = metric.split_once(' ').unwrap_or((metric, ""));
    let (name, pod) = (format!("{name}{{"), format!("pod=\"{pods}-"));
    let is_meant = |line: &&str| line.starts_with(&name) && line.contains(&pod) && line.contains(label);
    metrics.lines().filter(is_meant).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() as u64
}

fn in_process(cluster: &Cluster, pods: &str) -> u64 {
    counted(cluster, "knarr_container_calls_in_process_total", pods)
}

fn begun(cluster: &Cluster, pods: &str) -> u64 {
    counted(cluster, "knarr_container_calls_total what=\"begun\"", pods)
}

/// Has the front call `CALLS` times; how many of them the back pods had, and how many of those in process.
fn call(cluster: &Cluster, url: &str) -> (u64, u64) {
    let before = (begun(cluster, "back"), in_process(cluster, "back"));
    for _ in 0..CALLS {
        let answer = cluster.ask("front", 80, &format!("/call?url={url}")).expect("the front answers");
        assert!(answer.status == 200 && answer.body.contains("Hello from back-"), "{url}: {answer:?}");
    }
    (begun(cluster, "back") - before.0, in_process(cluster, "back") - before.1)
}

#[test]
fn a_service_of_the_same_host_is_called_in_process() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    for name in ["front", "back"] {
        cluster.kubectl(&format!("create deployment {name} --image=registry.local/hello:v1")).ok();
        cluster.kubectl(&format!("expose deployment {name} --port=80 --target-port=8080")).ok();
    }
    for name in ["front", "back"] {
        cluster.wait_rollout(name);
    }
    cluster.wait_answer("front", 80, "/call?url=http://back/", "Hello from back-");
    let address = cluster.value("service/back", ".spec.clusterIP");
    eventually("the host knows the Service", || match call(&cluster, "http://back/") {
        (CALLS, CALLS) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for url in ["http://back:80/", "http://back.default/", "http://back.default.svc.cluster.local/"] {
        assert_eq!(call(&cluster, url), (CALLS, CALLS), "{url}");
    }
    assert_eq!(in_process(&cluster, "front"), 0, "the front is asked over connections");
    // An address is called by who may.
    let answer = cluster.ask("front", 80, &format!("/call?url=http://{address}/")).expect("the front answers");
    assert!(answer.status == 502 && answer.body.contains("HttpRequestDenied"), "{answer:?}");

    // The kernel remembers who called whom; calls in process do not.
    let sticky = r#"{"spec": {"sessionAffinity": "ClientIP"}}"#;
    cluster.kubectl_args(&["patch", "service", "back", "-p", sticky], "").ok();
    eventually("affinity is the kernel's", || match call(&cluster, "http://back/") {
        (CALLS, 0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let plain = r#"{"spec": {"sessionAffinity": "None"}}"#;
    cluster.kubectl_args(&["patch", "service", "back", "-p", plain], "").ok();
    eventually("it is in process again", || match call(&cluster, "http://back/") {
        (CALLS, CALLS) => Ok(()),
        other => Err(format!("{other:?}")),
    });

    // Where nobody is left, nobody answers; and who sleeps is woken.
    cluster.kubectl("scale deployment back --replicas=0").ok();
    eventually("nobody answers", || match cluster.ask("front", 80, "/call?url=http://back/") {
        Ok(answer) if answer.status == 502 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.kubectl("annotate deployment back knarr.dev/scale-to-zero-after=1h").ok();
    eventually("it is woken", || match cluster.ask("front", 80, "/call?url=http://back/") {
        Ok(answer) if answer.body.contains("Hello from back-") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // Only connections keep it awake.
    assert_eq!(call(&cluster, "http://back/"), (CALLS, 0));
}
