//! Who may do what: client certificates and RBAC.

use std::fs;
use std::process::Command;

use e2e::{Cluster, Said, eventually, needs};

#[test]
fn people_may_do_what_roles_allow_and_strangers_nothing() {
    let Some(cluster) = Cluster::up() else { return };
    let jane = cluster.folder().join("jane.kubeconfig");
    let made = Said::by(
        Command::new(needs::binary())
            .args(["kubeconfig", "--user", "jane", "--group", "dev", "--server", cluster.listen(), "--data-dir"])
            .arg(cluster.data_dir()),
        "",
    );
    fs::write(&jane, made.ok()).expect("a new file");
    let as_jane = |words: &str| Said::by(cluster.client("kubectl").env("KUBECONFIG", &jane).args(words.split(' ')), "");

    let said = as_jane("get pods").refused();
    assert!(said.contains("Forbidden") && said.contains("\"jane\" cannot list resource \"pods\""), "{said}");
    cluster.kubectl("create rolebinding jane-views --clusterrole=view --group=dev").ok();
    eventually("jane may look", || {
        let said = as_jane("get pods");
        if said.success { Ok(()) } else { Err(said.stderr) }
    });
    as_jane("create configmap x --from-literal=a=b").refused();
    as_jane("get pods -n kube-system").refused();
    as_jane("get secrets").refused();
    assert_eq!(as_jane("auth can-i delete pods").everything().trim(), "no");
    assert!(as_jane("auth whoami").ok().contains("jane"));

    // A made-up password opens nothing.
    let server = format!("--server=https://{}", cluster.listen());
    for path in ["/api/v1/namespaces", "/apis", "/openapi/v3", "/v2/_catalog"] {
        let mut command = Command::new("kubectl");
        command.args(["--kubeconfig=/dev/null", "--insecure-skip-tls-verify", "--token=made-up", &server]);
        let said = Said::by(command.args(["get", "--raw", path]).env("HOME", cluster.folder()), "").refused();
        assert!(said.contains("Unauthorized") || said.contains("logged in"), "{path}: {said}");
    }
}
