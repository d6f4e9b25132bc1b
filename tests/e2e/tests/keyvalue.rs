//! Buckets: replicas of a Wasm service share their state, which outlives them and the server; who was not granted a
//! bucket gets nothing.

use e2e::needs::example;
use e2e::{Cluster, Options, eventually};

const RAW: &str = "/apis/knarr.dev/v1alpha1/namespaces/default/buckets/visits/entries";

const MANIFEST: &str = r"
apiVersion: knarr.dev/v1alpha1
kind: Bucket
metadata: {name: visits}
spec: {quota: {maxEntries: 3}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: counter}
spec:
  replicas: 2
  selector: {matchLabels: {app: counter}}
  template:
    metadata:
      labels: {app: counter}
      annotations: {knarr.dev/buckets: 'counters=visits'}
    spec: {containers: [{name: main, image: 'registry.local/counter:v1'}]}
---
apiVersion: v1
kind: Service
metadata: {name: counter}
spec: {selector: {app: counter}, ports: [{port: 80, targetPort: 8080}]}
";

/// No annotation: no bucket.
const BARE: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: bare, labels: {app: bare}}
spec: {containers: [{name: main, image: 'registry.local/counter:v1'}]}
---
apiVersion: v1
kind: Service
metadata: {name: bare}
spec: {selector: {app: bare}, ports: [{port: 80, targetPort: 8080}]}
";

/// Adds to a counter, as `kubectl` does it: the body is not looked at.
fn add(cluster: &Cluster, name: &str, by: i64) {
    cluster.kubectl_with(&format!("create --raw {RAW}/{name}?add={by} -f -"), "{}").ok();
}

#[test]
fn services_share_state_that_outlives_them() {
    let Some(mut cluster) = Cluster::up() else { return };
    cluster.build_image(&example("api-keyvalue.wasm"), "counter:v1", &[]).ok();
    cluster.apply(MANIFEST);
    cluster.wait_rollout("counter");
    cluster.wait_answer("counter", 80, "/healthz", "ok");
    // Two ways to one number: through the API, and from whichever replica answers.
    add(&cluster, "hits", 40);
    add(&cluster, "hits", 2);
    for _ in 0..4 {
        assert_eq!(cluster.wait_answer("counter", 80, "/counters/hits", "42"), "42\n");
    }
    cluster.wait_value("bucket/visits", ".status.usage.entries", "1");
    assert!(cluster.kubectl("get buckets").ok().contains("visits"));
    assert!(cluster.kubectl("explain bucket.spec.quota").ok().contains("maxEntries"));

    cluster.apply(BARE);
    cluster.wait_answer("bare", 80, "/healthz", "ok");
    let refused = cluster.ask("bare", 80, "/counters/hits").expect("an answer");
    assert_eq!((refused.status, refused.body.as_str()), (403, "the pod was not granted the bucket\n"));

    // The server goes, the pods' hosts stay and ask the next one.
    cluster.kill();
    cluster.start_again(Options::default());
    assert_eq!(cluster.wait_answer("counter", 80, "/counters/hits", "42"), "42\n");

    for name in ["b", "c"] {
        add(&cluster, name, 1);
    }
    let full = cluster.kubectl_with(&format!("create --raw {RAW}/d?add=1 -f -"), "{}").refused();
    assert!(full.contains("exceeded quota: it may hold 3 entries"), "{full}");
    cluster.kubectl("delete bucket visits").ok();
    eventually("the service has no bucket any more", || match cluster.ask("counter", 80, "/counters/hits") {
        Ok(answer) if answer.status == 503 && answer.body == "there is no such bucket\n" => Ok(()),
        Ok(answer) => Err(format!("it answered {answer:?}")),
        Err(error) => Err(error.to_string()),
    });
}
