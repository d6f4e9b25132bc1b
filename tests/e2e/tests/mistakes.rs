//! Bad input: each mistake gets a clear answer, and nothing else is disturbed.

use std::os::unix::process::CommandExt;
use std::process::Command;

use e2e::images::{BUSYBOX, TRAP, UNKNOWN_IMPORT, wasm_file};
use e2e::layout::Layout;
use e2e::{Cluster, Options, Said, eventually};

#[test]
fn mistakes_are_answered_clearly_and_disturb_nobody() {
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    cluster.apply(&pod("bystander", "registry.local/backend:v1", ""));
    cluster.kubectl("expose pod bystander --port=80 --target-port=8080").ok();
    cluster.wait_answer("bystander", 80, "/", "Linux container");

    objects_with_mistakes_are_refused(&cluster);
    files_that_are_no_wasm_are_refused(&cluster);
    pods_with_bad_images_say_why(&cluster);
    a_second_process_is_refused(&cluster);

    cluster.wait_answer("bystander", 80, "/", "Linux container");
    assert_eq!(cluster.value("pod/bystander", ".status.containerStatuses[0].restartCount"), "0");
}

fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
         spec: {{restartPolicy: Never, containers: [{{name: main, image: '{image}'{more}}}]}}\n"
    )
}

fn objects_with_mistakes_are_refused(cluster: &Cluster) {
    let check = |manifest: &str, texts: &[&str]| {
        let said = cluster.kubectl_with("apply -f -", manifest).refused();
        assert!(texts.iter().all(|text| said.contains(text)), "{texts:?} not in {said}");
    };
    check(&pod("unknown", BUSYBOX, ", imagine: yes"), &["unknown field", "spec.containers[0].imagine"]);
    check(&pod("wrong", BUSYBOX, ", ports: [{containerPort: eighty}]"), &["containerPort"]);
    check(&pod("Not_A_Name", BUSYBOX, ""), &["Not_A_Name", "RFC 1123"]);
    check("apiVersion: v1\nkind: Pod\nmetadata: {name: empty}\nspec: {containers: []}\n", &["spec.containers"]);
    check("apiVersion: v1\nkind: Unheard\nmetadata: {name: of}\n", &["no matches for kind"]);
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: mismatched}\nspec: {selector: {matchLabels: \
                      {app: a}}, template: {metadata: {labels: {app: b}}, spec: {containers: [{name: c, image: i}]}}}\n";
    check(deployment, &["selector"]);
}

fn files_that_are_no_wasm_are_refused(cluster: &Cluster) {
    let (_folder, path) = wasm_file(b"#!/bin/sh\necho I am a script\n");
    let said = cluster.build_image(&path, "script:v1", &[]).refused();
    assert!(said.contains("no Wasm"), "{said}");
    let (_folder, path) = wasm_file(b"\0asm\x01\0\0\0garbage");
    let said = cluster.build_image(&path, "garbage:v1", &[]).refused();
    assert!(said.contains("no Wasm"), "{said}");
    assert!(cluster.build_image("/nonexistent.wasm".as_ref(), "x:v1", &[]).refused().contains("/nonexistent.wasm"));
}

fn pods_with_bad_images_say_why(cluster: &Cluster) {
    cluster.push_wat(UNKNOWN_IMPORT, "needy:v1");
    cluster.push_wat(TRAP, "trap:v1");
    let layout = Layout::new();
    layout.finish(&layout.linux(b"this is no archive", &["/app"]));
    cluster.knarr(&["image", "push", &layout.path().display().to_string(), "--tag", "corrupt:v1"]).ok();
    cluster.apply(&pod("corrupt", "registry.local/corrupt:v1", ""));
    cluster.apply(&pod("missing", "registry.local/nobody/pushed:this", ""));
    cluster.apply(&pod("needy", "registry.local/needy:v1", ""));
    cluster.apply(&pod("trap", "registry.local/trap:v1", ""));
    cluster.wait_event("corrupt", "layer");
    let waiting = |pod: &str| cluster.value(&format!("pod/{pod}"), ".status.containerStatuses[0].state.waiting.reason");
    eventually("the missing image is named", || match waiting("missing").as_str() {
        "ErrImagePull" | "ImagePullBackOff" => Ok(()),
        _ => Err(cluster.why("pod/missing")),
    });
    cluster.wait_event("missing", "nobody/pushed");
    // Who cannot run is told which import is missing.
    cluster.wait_event("needy", "acme:gpu/compute");
    assert_eq!(cluster.wait_ended("trap"), "Failed");
    let terminated = cluster.value("pod/trap", ".status.containerStatuses[0].state.terminated");
    assert!(terminated.contains("unreachable"), "{terminated}");
}

fn a_second_process_is_refused(cluster: &Cluster) {
    let run = |command: &mut Command| Said::by(command, "").refused();
    let said = run(&mut cluster.command(Options::default()));
    assert!(said.contains("another knarr process") && said.contains("--data-dir"), "{said}");
    let other = cluster.folder().join("other");
    let mut command = Command::new(e2e::needs::binary());
    command.args(["up", "--listen", cluster.listen(), "--data-dir"]).arg(&other);
    let said = run(&mut command);
    assert!(said.contains("in use") && said.contains(cluster.listen()), "{said}");
    let nobody = |command: &mut Command| run(command.uid(65534).gid(65534));
    let said = nobody(&mut cluster.command(Options::default()));
    assert!(said.contains("needs root") && said.contains("sudo knarr up"), "{said}");
    let said = run(Command::new(e2e::needs::binary()).args(["up", "--no-such-flag"]));
    assert!(said.contains("--no-such-flag"), "{said}");
}
