//! `kubectl debug`: a container is added to a pod that runs, sees what people want to see, and changes nothing.

use std::process::Command;

use e2e::images::{BUSYBOX, COMMAND, HELLO};
use e2e::needs::program;
use e2e::{Cluster, Said, eventually};

fn linux_pod() -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: linux}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         containers:\n  - name: main\n    image: '{BUSYBOX}'\n    command: [/bin/busybox, sh, -c, \
         'mkdir -p /www; echo from inside > /www/index.html; /bin/busybox httpd -p 127.0.0.1:8081 -h /www; \
         exec /bin/busybox sleep 12345']\n"
    )
}

fn wasm_pod() -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: wasm}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         containers: [{{name: main, image: '{HELLO}', ports: [{{containerPort: 8080}}]}}]\n"
    )
}

#[test]
fn people_look_into_running_pods() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    if !cluster.push_busybox() {
        return;
    }
    cluster.apply(&linux_pod());
    cluster.apply(&wasm_pod());
    for pod in ["pod/linux", "pod/wasm"] {
        cluster.wait_value(pod, ".status.phase", "Running");
    }
    a_debugger_sees_processes_and_localhost(&cluster);
    a_shell_on_a_terminal(&cluster);
    linux_beside_wasm(&cluster);
    an_isolated_pod_and_its_debugger(&cluster);
    wasm_as_a_debugger(&cluster);
    what_is_added_stays_and_ends_with_the_pod(&cluster);
}

/// `kubectl debug` and its words, with an image and a name.
fn debug(cluster: &Cluster, pod: &str, name: &str, script: &str) -> Said {
    let container = format!("--container={name}");
    let image = format!("--image={BUSYBOX}");
    let args =
        ["debug", pod, &container, &image, "--target=main", "--profile=general", "--", "/bin/busybox", "sh", "-c"];
    let all: Vec<&str> = args.into_iter().chain([script]).collect();
    cluster.kubectl_args(&all, "")
}

fn state(cluster: &Cluster, pod: &str, name: &str) -> String {
    cluster.value(pod, &format!(".status.ephemeralContainerStatuses[?(@.name=='{name}')].state"))
}

fn ended(cluster: &Cluster, pod: &str, name: &str) -> String {
    eventually(&format!("{name} ends"), || {
        let state = state(cluster, &format!("pod/{pod}"), name);
        if state.contains("terminated") { Ok(state) } else { Err(cluster.why(&format!("pod/{pod}"))) }
    })
}

fn a_debugger_sees_processes_and_localhost(cluster: &Cluster) {
    let before = cluster.value("pod/linux", ".status.containerStatuses[0].containerID");
    let look = "/bin/busybox ps; /bin/busybox wget -qO- http://127.0.0.1:8081/; exit 7";
    debug(cluster, "linux", "look", look).ok();
    let state = ended(cluster, "linux", "look");
    assert!(state.contains("\"exitCode\":7"), "{state}");
    let said = cluster.kubectl("logs linux -c look").ok();
    assert!(said.contains("sleep 12345") && said.contains("from inside"), "{said}");
    // It is never started again, and nothing else noticed.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(self::state(cluster, "pod/linux", "look").contains("terminated"));
    assert_eq!(cluster.value("pod/linux", ".status.containerStatuses[0].containerID"), before);
    assert_eq!(cluster.value("pod/linux", ".status.phase"), "Running");
    assert!(cluster.wait_event("linux", "Started container look").contains("look"));
}

/// As people do it: `-it`. kubectl wants a terminal of its own for that: `script` of util-linux lends one.
fn a_shell_on_a_terminal(cluster: &Cluster) {
    if program("script").is_some() {
        let line = format!(
            "stty cols 77 rows 33; kubectl debug linux --container=shell --image={BUSYBOX} --target=main -it -- \
             /bin/busybox sh -c '/bin/busybox --install -s /bin; sleep 4; tty; stty size; ps; exit 6'"
        );
        let mut command: Command = cluster.client("script");
        command.args(["-qec", &line, "/dev/null"]);
        let said = Said::by(&mut command, "").everything();
        assert!(said.contains("/dev/pts/") && said.contains("33 77") && said.contains("sleep 12345"), "{said:?}");
        assert!(ended(cluster, "linux", "shell").contains("\"exitCode\":6"));
    }
    let running = debug(cluster, "linux", "stays", "exec /bin/busybox sleep 4321");
    running.ok();
    eventually("the debugger runs", || {
        let state = state(cluster, "pod/linux", "stays");
        if state.contains("running") { Ok(()) } else { Err(state) }
    });
    let said = cluster.kubectl("exec linux -c stays -- /bin/busybox ps").ok();
    assert!(said.contains("sleep 4321") && said.contains("sleep 12345"), "{said}");
}

/// The pod has no namespaces: the debugger has a network of its own and reaches the pod by its address.
fn linux_beside_wasm(cluster: &Cluster) {
    let ip = cluster.value("pod/wasm", ".status.podIP");
    let look = format!(
        "/bin/busybox wget -qO- http://{ip}:8080/; echo; /bin/busybox wget -qO- http://wasm:8080/; \
         /bin/busybox ip address; echo one two > /dev/termination-log"
    );
    debug(cluster, "wasm", "look", &look).ok();
    let state = ended(cluster, "wasm", "look");
    assert!(state.contains("\"exitCode\":0") && state.contains("one two"), "{state}");
    let said = cluster.kubectl("logs wasm -c look").ok();
    assert_eq!(said.matches("Hello").count(), 2, "{said}");
    assert!(said.contains("eth0") && !said.contains("knarr"), "not the network of the node: {said}");
    cluster.wait_event("wasm", "container main is WebAssembly");
    assert_eq!(cluster.value("pod/wasm", ".status.podIP"), ip);
}

/// A debugger with an address of its own is a part of its pod, for network policies too.
fn an_isolated_pod_and_its_debugger(cluster: &Cluster) {
    cluster.apply(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: nothing}\nspec: \
         {podSelector: {}, policyTypes: [Ingress, Egress]}\n",
    );
    cluster.apply(&wasm_pod().replace("name: wasm", "name: other"));
    cluster.wait_value("pod/other", ".status.phase", "Running");
    let [ip, other] = ["pod/wasm", "pod/other"].map(|pod| cluster.value(pod, ".status.podIP"));
    let look = format!(
        "/bin/busybox wget -qO- http://{ip}:8080/; /bin/busybox wget -qO- http://{other}:8080/ || echo isolated"
    );
    debug(cluster, "wasm", "isolated", &look).ok();
    let state = ended(cluster, "wasm", "isolated");
    assert!(state.contains("\"exitCode\":0"), "{state}");
    let said = cluster.kubectl("logs wasm -c isolated").ok();
    assert!(said.matches("Hello").count() == 1 && said.contains("isolated"), "{said}");
    cluster.kubectl("delete networkpolicy/nothing pod/other").ok();
}

fn wasm_as_a_debugger(cluster: &Cluster) {
    for pod in ["wasm", "linux"] {
        let name = "guest";
        let args = ["debug", pod, "--container=guest", &format!("--image={COMMAND}"), "--env=COLOUR=green"];
        cluster.kubectl_args(&args, "").ok();
        let state = ended(cluster, pod, name);
        assert!(state.contains("\"exitCode\":0"), "{state}");
        let said = cluster.kubectl(&format!("logs {pod} -c {name}")).ok();
        assert!(said.contains("COLOUR=green"), "{said}");
    }
}

fn what_is_added_stays_and_ends_with_the_pod(cluster: &Cluster) {
    let names = cluster.value("pod/linux", ".spec.ephemeralContainers[*].name");
    assert!(names.starts_with("look"), "{names}");
    let again = debug(cluster, "linux", "look", "true").refused();
    assert!(again.contains("look"), "{again}");
    cluster.kubectl("delete pod linux wasm --wait --timeout=60s").ok();
}
