//! A Deployment goes to zero when nobody uses it through any node, and wakes for a connection to any.

use std::time::{Duration, Instant};

use e2e::needs::{example, missing, skip};
use e2e::within;
use servers::nodes::{Cluster, text};
use servers::{Servers, Storage};

const NODES: [&str; 2] = ["one", "two"];
/// For the time of the Deployment, and what comes after it.
const ASLEEP_WITHIN: Duration = Duration::from_secs(60);
/// Longer than it takes to fall asleep.
const USED_FOR: Duration = Duration::from_secs(25);

#[test]
fn used_on_one_node_is_used() {
    if let Some(missing) = missing(&["kubectl"]) {
        return skip(&missing).unwrap_or_default();
    }
    let Some(mut servers) = Servers::none(Storage::Folder) else { return };
    let server = servers.add();
    servers.start_server(server, &[]);
    let mut scene = Cluster::of(servers);
    scene.join(&NODES);
    let image = example("hello-http.wasm").display().to_string();
    scene.servers.knarr(0, &["image", "build", &image, "--tag", "hello:v1"]).ok();
    scene.kubectl("create deployment web --image=registry.local/hello:v1").ok();
    scene.kubectl("expose deployment web --port=80 --target-port=8080 --type=NodePort").ok();
    scene.kubectl("rollout status deployment/web --timeout=120s").ok();
    scene.kubectl("annotate deployment web knarr.dev/scale-to-zero-after=5s").ok();
    let port = scene.kubectl("get service web -o jsonpath={.spec.ports[0].nodePort}").ok();
    let ask = |node: usize| {
        let answer = e2e::http::get(&format!("{}:{port}", scene.agents[node].address), "/");
        let answer = answer.unwrap_or_else(|error| panic!("by way of {}: {error}", NODES[node]));
        assert!(answer.status == 200 && answer.body.contains("Hello from web-"), "{answer:?}");
    };
    used_by_way_of_one(&scene, &ask);
    asleep(&scene);
    // By the other, and several at a time.
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(|| ask(1))).collect();
        asking.into_iter().for_each(|one| one.join().expect("each is answered"));
    });
    nobody_is_cut_off(&scene, &ask);
}

fn web(scene: &Cluster) -> serde_json::Value {
    scene.kubectl("get deployment web -o json").json()
}

/// What a node says.
fn said(scene: &Cluster, node: &str) -> String {
    let lease = scene.kubectl(&format!("-n kube-node-lease get lease {node} -o json")).json();
    text(&lease, "/metadata/annotations/knarr.dev~1unused-deployments").to_owned()
}

/// Node one sees somebody all the time, node two nobody.
fn used_by_way_of_one(scene: &Cluster, ask: &dyn Fn(usize)) {
    let before = web(scene);
    let began = Instant::now();
    while began.elapsed() < USED_FOR {
        ask(0);
        std::thread::sleep(Duration::from_millis(700));
    }
    let after = web(scene);
    assert_eq!(
        text(&after, "/metadata/resourceVersion"),
        text(&before, "/metadata/resourceVersion"),
        "nothing was written"
    );
    assert_eq!((said(scene, "one").as_str(), said(scene, "two").as_str()), ("", text(&after, "/metadata/uid")));
}

fn asleep(scene: &Cluster) {
    within(ASLEEP_WITHIN, "the Deployment sleeps", || {
        let web = web(scene);
        let mark = text(&web, "/metadata/annotations/knarr.dev~1scale-to-zero-mark");
        match (web["spec"]["replicas"].as_u64(), mark) {
            (Some(0), "") => Ok(()),
            _ => Err(format!("{} {}", web["metadata"], web["spec"]["replicas"])),
        }
    });
    within(ASLEEP_WITHIN, "its pods are gone, and nobody says anything of it", || {
        let (pods, said) = (scene.pods("web").len(), NODES.map(|node| said(scene, node)));
        if pods == 0 && said == ["", ""] { Ok(()) } else { Err(format!("{pods} pods, {said:?}")) }
    });
}

/// Somebody asks in turn by way of each node, about as often as it falls asleep: he is always answered.
fn nobody_is_cut_off(scene: &Cluster, ask: &dyn Fn(usize)) {
    for (turn, millis) in [7_000, 12_500, 13_000, 13_500, 14_000, 9_000].into_iter().enumerate() {
        std::thread::sleep(Duration::from_millis(millis));
        ask(turn % 2);
    }
    asleep(scene);
    ask(0);
}
