//! Which runtime a container gets, and what a pod gives to programs of either.

use e2e::Cluster;
use e2e::images::{COMMAND, UNKNOWN_IMPORT};
use e2e::needs::example;

#[test]
fn an_image_of_both_kinds_falls_back_and_says_why() {
    let Some(cluster) = Cluster::up() else { return };
    let hello = std::fs::read(example("hello-http.wasm")).expect("the example can be read");
    let unknown = wat::parse_str(UNKNOWN_IMPORT).expect("the guest is well-formed");
    cluster.push_dual(&hello, &example("backend"), "dual:v1");
    cluster.push_dual(&unknown, &example("backend"), "needy:v1");
    cluster.apply(&pod("as-wasm", "dual:v1", ""));
    cluster.apply(&pod("as-container", "dual:v1", "annotations: {knarr.dev/runtime: container}"));
    cluster.apply(&pod("fallen-back", "needy:v1", ""));
    for (name, says) in [("as-wasm", "Hello"), ("as-container", "Linux container"), ("fallen-back", "Linux container")]
    {
        cluster.kubectl(&format!("expose pod {name} --port=80 --target-port=8080")).ok();
        cluster.wait_answer(name, 80, "/", says);
    }
    cluster.wait_event("as-container", "knarr.dev/runtime");
    cluster.wait_event("fallen-back", "acme:gpu/compute");
}

fn pod(name: &str, image: &str, metadata: &str) -> String {
    let metadata = if metadata.is_empty() { String::new() } else { format!(", {metadata}") };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}{metadata}}}\n\
         spec: {{containers: [{{name: main, image: 'registry.local/{image}'}}]}}\n"
    )
}

#[test]
fn a_pod_gives_configuration_to_both_kinds() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    if !cluster.push_busybox() {
        return;
    }
    cluster.kubectl("create configmap settings --from-literal=colour=blue").ok();
    cluster.kubectl("create secret generic password --from-literal=word=rosebud").ok();
    cluster.apply(&with_configuration("wasm-job", COMMAND, ""));
    let shell = r#"command: [/bin/busybox, sh, -c, 'echo "COLOUR=$COLOUR WORD=$WORD"; cat $READ_FILE'],"#;
    cluster.apply(&with_configuration("linux-job", e2e::images::BUSYBOX, shell));
    for name in ["wasm-job", "linux-job"] {
        assert_eq!(cluster.wait_ended(name), "Succeeded", "{}", cluster.why(&format!("pod/{name}")));
        let said = cluster.kubectl(&format!("logs {name}")).ok();
        assert!(said.contains("COLOUR=blue") && said.contains("WORD=rosebud") && said.contains("blue"), "{said}");
    }
    // Exit codes: WASI 0.2 knows only success and failure.
    cluster.apply(&failing("wasm-fails", COMMAND, "env: [{name: EXIT_CODE, value: '1'}]"));
    cluster.apply(&failing("linux-fails", e2e::images::BUSYBOX, "command: [/bin/busybox, sh, -c, 'exit 42']"));
    for (name, code) in [("wasm-fails", "1"), ("linux-fails", "42")] {
        assert_eq!(cluster.wait_ended(name), "Failed");
        let path = ".status.containerStatuses[0].state.terminated.exitCode";
        assert_eq!(cluster.value(&format!("pod/{name}"), path), code);
    }
}

fn with_configuration(name: &str, image: &str, command: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  volumes:
  - {{name: settings, configMap: {{name: settings}}}}
  containers:
  - {{name: main, image: '{image}', {command}
      volumeMounts: [{{name: settings, mountPath: /settings}}],
      env: [{{name: COLOUR, valueFrom: {{configMapKeyRef: {{name: settings, key: colour}}}}}},
            {{name: WORD, valueFrom: {{secretKeyRef: {{name: password, key: word}}}}}},
            {{name: READ_FILE, value: /settings/colour}}]}}
"
    )
}

fn failing(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n\
         spec: {{restartPolicy: Never, containers: [{{name: main, image: '{image}', {more}}}]}}\n"
    )
}
