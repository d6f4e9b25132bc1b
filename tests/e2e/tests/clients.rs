//! Clients that people use besides kubectl: Helm, client-go, controller-runtime, the Python client. `.ci/clients`
//! builds them; the test of one that is not on the PATH says that it skips.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::needs::program;
use e2e::{Background, Cluster, Said, eventually};

const GREETINGS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: greetings.example.dev}
spec:
  group: example.dev
  scope: Namespaced
  names: {kind: Greeting, plural: greetings, singular: greeting}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {name: {type: string}}}
          status: {type: object, properties: {text: {type: string}, observedGeneration: {type: integer}}}
"#;

/// A client, or a line that says that there is none here.
fn client(name: &str) -> Option<PathBuf> {
    let found = program(name);
    if found.is_none() {
        println!("skipped: there is no {name} on the PATH; `.ci/clients` builds it");
    }
    found
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn helm_installs_upgrades_rolls_back_and_uninstalls() {
    let Some(helm) = client("helm") else { return };
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    let run = |words: &str| {
        let mut command: Command = cluster.client(&helm);
        Said::by(command.current_dir(folder("charts")).args(words.split_whitespace()), "")
    };
    let colour = || cluster.value("configmap/shop-settings", ".data.colour");
    assert!(run("install shop web --wait --timeout 90s").ok().contains("STATUS: deployed"));
    assert_eq!(colour(), "red");
    run("upgrade shop web --set colour=blue,replicas=2 --wait --timeout 90s").ok();
    assert_eq!(
        (colour().as_str(), cluster.value("deployment/shop", ".status.availableReplicas").as_str()),
        ("blue", "2")
    );
    assert_eq!(cluster.value("configmap/shop-before", ".data.revision"), "2", "hooks run before");
    run("rollback shop 1 --wait --timeout 90s").ok();
    assert_eq!(colour(), "red");
    let failed = run("upgrade shop web --set image=registry.local/none:v9 --wait --timeout 5s --atomic").refused();
    assert!(failed.contains("has been rolled back"), "{failed}");
    let history = run("history shop").ok();
    for state in ["superseded", "failed", "deployed"] {
        assert!(history.contains(state), "no {state} in {history}");
    }
    let dry = run("upgrade --install other web --dry-run=server").ok();
    assert!(dry.contains("NAME: other") && cluster.value("deployment/other", ".metadata.name").is_empty(), "{dry}");
    run("uninstall shop --wait --timeout 90s").ok();
    assert_eq!(cluster.kubectl("get deployments,configmaps,services -l app=shop -o name").ok(), "");
}

#[test]
fn client_go_writes_protobuf_and_its_informer_sees_everything() {
    let Some(informer) = client("knarr-test-informer") else { return };
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    let said = Said::by(&mut cluster.client(informer), "").ok();
    assert!(said.contains("client-go saw everything"), "{said}");
}

#[test]
fn an_operator_of_controller_runtime_leads_reconciles_and_finalizes() {
    let Some(operator) = client("knarr-test-operator") else { return };
    let Some(cluster) = Cluster::up() else { return };
    cluster.apply(GREETINGS);
    cluster.kubectl("wait --for=condition=Established crd/greetings.example.dev --timeout=30s").ok();
    let mut first = Background::start(&mut cluster.client(&operator));
    first.wait_for("successfully acquired lease");
    let _second = Background::start(&mut cluster.client(&operator));
    let greeting = |name: &str| {
        format!("apiVersion: example.dev/v1\nkind: Greeting\nmetadata: {{name: hi}}\nspec: {{name: {name}}}\n")
    };
    cluster.apply(&greeting("Ada"));
    cluster.wait_value("greeting/hi", ".status.text", "Hello, Ada");
    cluster.wait_value("configmap/hi", ".data.text", "Hello, Ada");
    assert_eq!(cluster.value("configmap/hi", ".metadata.ownerReferences[0].kind"), "Greeting");
    // What it owns comes back.
    cluster.kubectl("delete configmap hi").ok();
    cluster.wait_value("configmap/hi", ".data.text", "Hello, Ada");
    // The other one takes over.
    first.interrupt();
    cluster.apply(&greeting("Grace"));
    cluster.wait_value("greeting/hi", ".status.text", "Hello, Grace");
    // The finalizer holds the object until the operator has done its part; its own objects go with it.
    cluster.kubectl("delete greeting hi --timeout=60s").ok();
    assert_eq!(cluster.value("configmap/hi-goodbye", ".metadata.name"), "hi-goodbye");
    eventually("the owned ConfigMap is collected", || {
        let left = cluster.kubectl("get configmap hi --ignore-not-found -o name").stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn the_python_client_works_typed_and_untyped() {
    let Some(python) = client("knarr-test-python") else { return };
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    if !cluster.push_busybox() {
        return;
    }
    let said = Said::by(cluster.client(python).arg(folder("clients/python/flows.py")), "").ok();
    assert!(said.contains("the Python client did everything"), "{said}");
}
