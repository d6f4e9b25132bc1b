//! A backup is the whole cluster in one file: what it holds comes back, what is damaged is refused.

use std::fs;
use std::path::Path;

use e2e::{Background, Cluster, Options};

/// Creates ConfigMaps for as long as it lives.
const WRITER: &str = "number=0; while :; do kubectl create configmap busy-$number --from-literal=a=b; \
                      number=$((number + 1)); done";
const REVISION: &str = ".metadata.resourceVersion";

#[test]
fn a_cluster_comes_back_from_its_backup() {
    let Some(mut cluster) = Cluster::up() else { return };
    cluster.kubectl("create namespace team").ok();
    cluster.kubectl("create secret generic login --namespace team --from-literal=password=s3cret-word").ok();
    let backup = cluster.folder().join("state.knarr");
    let file = backup.display().to_string();
    let writer = Background::start(cluster.client("/bin/sh").args(["-c", WRITER]));
    writer.wait_for("busy-3 created");
    let said = cluster.knarr(&["backup", &file]).ok();
    assert!(said.contains("objects at revision"), "{said}");
    drop(writer);
    let refused = cluster.knarr(&["backup", &file]).refused();
    assert!(refused.contains("exists"), "{refused}");
    assert_eq!(
        fs::metadata(&backup).map(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o77).ok(),
        Some(0)
    );

    // What happens after it is not in it.
    cluster.kubectl("create configmap later").ok();
    let revision: u64 = cluster.value("configmap/later", REVISION).parse().expect("a number");
    assert!(cluster.stop().success(), "{}", cluster.log());
    a_damaged_backup_is_refused(&cluster, &backup);

    let said = restore(&cluster, &backup).refused();
    assert!(said.contains("holds the state of a cluster"), "{said}");
    fs::rename(cluster.data_dir(), cluster.folder().join("old")).expect("a folder can be renamed");
    restore(&cluster, &backup).ok();
    let kubeconfig = fs::read(cluster.kubeconfig()).expect("the old kubeconfig");
    cluster.start_again(Options::default());
    // Its clients know it again.
    fs::write(cluster.kubeconfig(), kubeconfig).expect("a file that is there");
    let secret = cluster.kubectl("get secret login --namespace team -o jsonpath={.data.password}").ok();
    assert_eq!(secret, "czNjcmV0LXdvcmQ=");
    for number in 0..3 {
        cluster.kubectl(&format!("get configmap busy-{number}")).ok();
    }
    assert!(cluster.kubectl("get configmap later").refused().contains("NotFound"));
    // No revision of the old cluster's means anything here, not even one after the backup.
    let path = format!("/api/v1/configmaps?watch=true&timeoutSeconds=1&resourceVersion={revision}");
    let said = cluster.kubectl_args(&["get", "--raw", &path], "").everything();
    assert!(said.contains("Expired") || said.contains("too old"), "{said}");
    cluster.kubectl("create configmap new").ok();
    let new: u64 = cluster.value("configmap/new", REVISION).parse().expect("a number");
    assert!(new > revision + 1_000_000, "{new}");
}

fn restore(cluster: &Cluster, backup: &Path) -> e2e::Said {
    restore_into(cluster, backup, &cluster.data_dir())
}

fn restore_into(cluster: &Cluster, backup: &Path, data_dir: &Path) -> e2e::Said {
    cluster.knarr(&["restore", &backup.display().to_string(), "--data-dir", &data_dir.display().to_string()])
}

fn a_damaged_backup_is_refused(cluster: &Cluster, backup: &Path) {
    let whole = fs::read(backup).expect("the backup");
    let damaged = cluster.folder().join("damaged.knarr");
    let into = cluster.folder().join("nothing");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for bytes in [&flipped[..], &whole[..whole.len() - 1], &whole[..40], b"no backup at all"] {
        fs::write(&damaged, bytes).expect("a file");
        let said = restore_into(cluster, &damaged, &into).refused();
        assert!(said.contains("is no whole backup"), "{said}");
        assert!(!into.exists(), "something was made of a damaged backup");
    }
}
