//! The embedded registry as skopeo sees it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use e2e::{Cluster, Said, needs};

#[test]
fn skopeo_pushes_and_pulls() {
    if needs::program("skopeo").is_none() {
        return needs::skip("there is no skopeo on the PATH").unwrap_or_default();
    }
    let Some(cluster) = Cluster::up() else { return };
    cluster.push_examples();
    let certificates = certificates(&cluster);
    let remote = |name: &str| format!("docker://{}/{name}", cluster.listen());
    let folder = cluster.folder().join("images");
    fs::create_dir(&folder).expect("a new folder");
    let oci = |name: &str| format!("oci:{}:v1", folder.join(name).display());
    let skopeo = |args: &[&str]| {
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy"]).args(args);
        Said::by(&mut command, "")
    };
    let dir = certificates.display().to_string();
    skopeo(&["--src-cert-dir", &dir, &remote("backend:v1"), &oci("backend")]).ok();
    skopeo(&["--dest-cert-dir", &dir, &oci("backend"), &remote("team/pushed:v1")]).ok();
    skopeo(&["--src-cert-dir", &dir, &remote("team/pushed:v1"), &oci("again")]).ok();
    let digest = |name: &str| {
        let index = fs::read_to_string(folder.join(name).join("index.json")).expect("skopeo wrote a layout");
        let index: serde_json::Value = serde_json::from_str(&index).expect("an index is JSON");
        index["manifests"][0]["digest"].clone()
    };
    assert_eq!(digest("backend"), digest("again"));
    let images = cluster.knarr(&["image", "ls"]).ok();
    assert!(images.contains("registry.local/team/pushed:v1"), "{images}");

    // What skopeo pushed runs, by either of its names.
    for (pod, registry) in [("by-alias", "registry.local"), ("by-address", cluster.listen())] {
        cluster.kubectl(&format!("run {pod} --image={registry}/team/pushed:v1")).ok();
        cluster.wait_value(&format!("pod/{pod}"), ".status.phase", "Running");
    }

    // Without a certificate nobody reads or writes.
    let mut anonymous = Command::new("skopeo");
    anonymous.args(["--insecure-policy", "inspect", "--tls-verify=false", &remote("backend:v1")]);
    Said::by(&mut anonymous, "").refused();
}

/// The folder in which skopeo looks for a registry's authority and a client's certificate.
fn certificates(cluster: &Cluster) -> PathBuf {
    let folder = cluster.folder().join("certificates");
    fs::create_dir(&folder).expect("a new folder");
    let config = cluster.kubectl("config view --raw -o json").json();
    let files = [
        ("ca.crt", "/clusters/0/cluster/certificate-authority-data"),
        ("client.cert", "/users/0/user/client-certificate-data"),
        ("client.key", "/users/0/user/client-key-data"),
    ];
    for (name, pointer) in files {
        let encoded = config.pointer(pointer).and_then(serde_json::Value::as_str).expect("the kubeconfig has it");
        let decoded = Said::by(Command::new("base64").arg("-d"), encoded).ok();
        fs::write(folder.join(name), decoded).expect("a new file");
    }
    folder
}
