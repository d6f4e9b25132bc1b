//! What runs in a pod can ask the API server, as its service account.

use e2e::{Cluster, eventually};

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
metadata: { name: asks }
spec:
  serviceAccountName: reader
  restartPolicy: Never
  containers:
    - name: asks
      image: registry.local/busybox:v1
      command: ["/bin/busybox", "sh", "-c"]
      args:
        - |
          cd /var/run/secrets/kubernetes.io/serviceaccount
          /bin/busybox head -1 ca.crt
          /bin/busybox wget -q -O - --no-check-certificate --header "Authorization: Bearer $(/bin/busybox cat token)" \
            https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/$(/bin/busybox cat namespace)/pods/asks
"#;

#[test]
fn a_pod_asks_the_api_server() {
    let Some(cluster) = Cluster::up() else { return };
    if !cluster.push_busybox() {
        return;
    }
    cluster.apply(POD);
    let phase = cluster.wait_ended("asks");
    let said = cluster.kubectl("logs asks").everything();
    assert_eq!(phase, "Succeeded", "{said}");
    assert!(said.contains("BEGIN CERTIFICATE") && said.contains(r#""kind":"Pod""#), "{said}");
    // The same from outside, by hand.
    let token = cluster.kubectl("create token reader --duration 10m").ok();
    let server = format!("--server=https://{}", cluster.listen());
    let with_token = |words: &str| {
        let auth = ["--kubeconfig=/dev/null", "--insecure-skip-tls-verify", &server, "--token", token.trim()];
        let args: Vec<&str> = auth.into_iter().chain(words.split(' ')).collect();
        cluster.kubectl_args(&args, "")
    };
    assert!(with_token("get pods").ok().contains("asks"));
    assert!(with_token("delete pod asks").refused().contains("system:serviceaccount:default:reader"));
    cluster.kubectl("delete serviceaccount reader").ok();
    eventually("the token of an account that is gone is refused", || {
        let said = with_token("get pods");
        if said.success { Err(said.stdout) } else { Ok(()) }
    });
}
