//! Pods have a token of their service account: good for what the account may, and for as long as they are there.

use e2e::{Cluster, Said, eventually};

const POD: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: { name: reader }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: reader }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view }
subjects: [{ kind: ServiceAccount, name: reader, namespace: default }]
---
apiVersion: v1
kind: Pod
metadata: { name: shows }
spec:
  serviceAccountName: reader
  restartPolicy: Never
  containers:
    - name: shows
      image: registry.local/busybox:v1
      command: ["/bin/busybox", "sh", "-c"]
      args: ["cd /var/run/secrets/kubernetes.io/serviceaccount && /bin/busybox cat token && echo && /bin/busybox cat namespace ca.crt"]
"#;

#[test]
fn a_pod_has_a_token_that_ends_with_it() {
    let Some(cluster) = Cluster::up() else { return };
    if !cluster.push_busybox() {
        return;
    }
    cluster.apply(POD);
    let phase = cluster.wait_ended("shows");
    let said = cluster.kubectl("logs shows").everything();
    assert_eq!(phase, "Succeeded", "{said}");
    let (token, rest) = said.split_once('\n').expect("a token and more");
    assert!(rest.starts_with("default-----BEGIN CERTIFICATE-----"), "{rest}");

    // What only the account may, with nothing but the token.
    let server = format!("--server=https://{}", cluster.listen());
    let with_token = |token: &str, words: &str| {
        let token = format!("--token={token}");
        let auth = ["--kubeconfig=/dev/null", "--insecure-skip-tls-verify", &server, &token];
        let args: Vec<&str> = auth.into_iter().chain(words.split(' ')).collect();
        cluster.kubectl_args(&args, "")
    };
    assert!(with_token(token, "get pods").ok().contains("shows"));
    assert!(with_token(token, "delete pod shows").refused().contains("system:serviceaccount:default:reader"));
    let by_hand = cluster.kubectl("create token reader --duration 10m").ok();
    assert!(with_token(by_hand.trim(), "auth whoami").ok().contains("system:serviceaccount:default:reader"));

    cluster.kubectl("delete pod shows").ok();
    eventually("the token of a pod that is gone is refused", || refused(&with_token(token, "get pods")));
    with_token(by_hand.trim(), "get pods").ok();
    cluster.kubectl("delete serviceaccount reader").ok();
    eventually("the token of an account that is gone is refused", || refused(&with_token(by_hand.trim(), "get pods")));
}

fn refused(said: &Said) -> Result<(), String> {
    if said.success { Err(said.stdout.clone()) } else { Ok(()) }
}
