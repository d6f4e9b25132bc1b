//! `knarr run` and `knarr dev`: from a file to an answer in one command.

use std::fs;

use e2e::images::{UNKNOWN_IMPORT, wasm_file};
use e2e::kubectl::Background;
use e2e::needs::{binary, example};
use e2e::{Cluster, eventually};

/// A component that only has a function to offer.
const PLUGIN: &str = r#"(component
    (core module $m (func (export "seven") (result i32) (i32.const 7)))
    (core instance $i (instantiate $m))
    (func (export "seven") (result u32) (canon lift (core func $i "seven"))))"#;

#[test]
fn a_file_becomes_an_answer() {
    let Some(cluster) = Cluster::up() else { return };
    let http = example("hello-http.wasm").display().to_string();
    let said =
        cluster.knarr(&["run", "web", &http, "--replicas", "2", "--env", "GREETING=Ahoy", "--memory", "32Mi"]).ok();
    let address = cluster.value("service/web", ".spec.clusterIP");
    assert!(said.contains(&format!("http://{address}/")), "{said}");
    cluster.wait_answer("web", 80, "/", "Ahoy");
    // Again is an update.
    cluster.knarr(&["run", "web", &http, "--env", "GREETING=Moin"]).ok();
    cluster.wait_answer("web", 80, "/", "Moin");
    assert_eq!(cluster.value("deployment/web", ".spec.replicas"), "1");
    assert_eq!(cluster.value("deployment/web", ".spec.template.spec.containers[0].resources"), "{}");
    // An image does not say what it is.
    cluster.push_examples();
    let said = cluster.knarr(&["run", "linux", e2e::images::BACKEND, "--port", "8080"]).ok();
    assert!(said.contains("http://"), "{said}");
    a_command_runs_to_its_end(&cluster);
    what_cannot_run_says_why(&cluster);
    changes_are_running_a_moment_later(&cluster);
}

fn a_command_runs_to_its_end(cluster: &Cluster) {
    let command = example("hello-command.wasm").display().to_string();
    let said = cluster.knarr(&["run", "once", &command, "--", "--fast", "file"]).ok();
    assert!(said.contains(r#""--fast", "file"]"#), "{said}");
    // The second time in the place of the first.
    let said = cluster.knarr(&["run", "once", &command, "--env", "EXIT_CODE=1"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.refused().contains("once ended with exit code 1"));
}

fn what_cannot_run_says_why(cluster: &Cluster) {
    let check = |wat: &str, expect: &str| {
        let (_folder, path) = wasm_file(&wat::parse_str(wat).expect("the guest is well-formed"));
        let said = cluster.knarr(&["run", "bad", &path.display().to_string()]).refused();
        assert!(said.contains(expect), "{said}");
    };
    check(PLUGIN, "(its exports: seven)");
    check(UNKNOWN_IMPORT, "acme:gpu/compute@1.0.0");
    let said = cluster.knarr(&["run", "bad", "./not-there.wasm"]).refused();
    assert!(said.contains("cannot read ./not-there.wasm"), "{said}");
    let said = cluster.knarr(&["run", "Bad_Name", "registry.local/backend:v1"]).refused();
    assert!(said.contains("RFC 1123"), "{said}");
}

fn changes_are_running_a_moment_later(cluster: &Cluster) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = folder.path().join("source.wasm");
    let first = fs::read(example("hello-http.wasm")).expect("the example was built");
    let save = |bytes: &[u8]| fs::write(&source, bytes).expect("the source can be written");
    save(&first);
    let dir = folder.path().display().to_string();
    let mut command = cluster.client(binary());
    command.args(["dev", &dir, "--name", "live", "--build", "cp source.wasm app.wasm", "--wasm", "app.wasm"]);
    let mut dev = Background::start(&mut command);
    dev.wait_for("live runs: http://");
    cluster.wait_answer("live", 80, "/", "Hello from");
    // A mistake is told, and mended by the next change.
    save(b"no wasm");
    dev.wait_for("is no WebAssembly file");
    save(&replaced(&first, b"Helloa Wasm", b"Jelloa Wasm"));
    cluster.wait_answer("live", 80, "/", "Jello from");
    // What the pods say is seen meanwhile.
    cluster.wait_answer("live", 80, "/log?text=ahoy+there", "logged");
    dev.wait_for("ahoy there");
    assert!(dev.interrupt().success(), "{}", dev.said());
    eventually("what it made is gone", || {
        let left = cluster.kubectl("get deployment,service live --ignore-not-found -o name").stdout;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).expect("the guest has its greeting in it");
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}
