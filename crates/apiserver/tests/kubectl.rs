//! The real kubectl against the server over TLS. Skipped, with a line saying so, where there is none.

mod harness;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use harness::Cluster;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

fn kubectl() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("kubectl")).find(|file| file.is_file())
}

fn params(name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params
}

struct Pki {
    ca: String,
    ca_der: rustls::pki_types::CertificateDer<'static>,
    server: (rustls::pki_types::CertificateDer<'static>, KeyPair),
    client: (String, String),
}

fn pki(user: &str, group: &str) -> Pki {
    let ca_key = KeyPair::generate().expect("key");
    let mut ca_params = params("ca", None);
    ca_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = ca_params.self_signed(&ca_key).expect("ca");
    let issuer = Issuer::new(ca_params, ca_key);
    let sign = |params: CertificateParams| {
        let key = KeyPair::generate().expect("key");
        (params.signed_by(&key, &issuer).expect("certificate"), key)
    };
    let (server, server_key) = sign(params("server", None));
    let (client, client_key) = sign(params(user, Some(group)));
    Pki {
        ca: ca.pem(),
        ca_der: ca.der().clone(),
        server: (server.der().clone(), server_key),
        client: (client.pem(), client_key.serialize_pem()),
    }
}

fn tls(pki: &Pki) -> rustls::ServerConfig {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.ca_der.clone()).expect("root");
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build().expect("verifier");
    let key = rustls::pki_types::PrivateKeyDer::try_from(pki.server.1.serialize_der()).expect("key");
    rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![pki.server.0.clone()], key)
        .expect("tls")
}

/// A server on a loopback port and a kubeconfig for it.
struct Session {
    kubectl: PathBuf,
    home: tempfile::TempDir,
    cluster: Cluster,
    stop: CancellationToken,
}

impl Session {
    async fn start() -> Option<Self> {
        let Some(kubectl) = kubectl() else {
            println!("skipped: no kubectl on PATH");
            return None;
        };
        let cluster = Cluster::new().await;
        let pki = pki("jane", "system:masters");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        tokio::spawn(apiserver::serve(listener, tls(&pki), cluster.server.router(), None, stop.clone()));
        let home = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).expect("a file");
        write("ca.pem", &pki.ca);
        write("client.pem", &pki.client.0);
        write("client.key", &pki.client.1);
        write(
            "config",
            &format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: k\nclusters:\n- name: k\n  cluster:\n    server: \
                 https://{address}\n    certificate-authority: ca.pem\nusers:\n- name: k\n  user:\n    \
                 client-certificate: client.pem\n    client-key: client.key\ncontexts:\n- name: k\n  context: \
                 {{cluster: k, user: k}}\n"
            ),
        );
        Some(Self { kubectl, home, cluster, stop })
    }

    async fn run(&self, arguments: &[&str], input: &str) -> (bool, String) {
        let config: &Path = &self.home.path().join("config");
        let mut child = tokio::process::Command::new(&self.kubectl)
            .args(arguments)
            .env("KUBECONFIG", config)
            .env("HOME", self.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).await.expect("input");
        drop(stdin);
        let output = child.wait_with_output().await.expect("kubectl ends");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }

    /// Runs a line of arguments; the output must hold every text of `expect`.
    async fn ok(&self, line: &str, input: &str, expect: &[&str]) {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (success, text) = self.run(&arguments, input).await;
        assert!(success, "kubectl {line}: {text}");
        for part in expect {
            assert!(text.contains(part), "kubectl {line}: no {part:?} in\n{text}");
        }
    }

    /// As [`Self::ok`], but the command fails.
    async fn refuses(&self, line: &str, input: &str, expect: &[&str]) {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (success, text) = self.run(&arguments, input).await;
        assert!(!success, "kubectl {line}: {text}");
        for part in expect {
            assert!(text.contains(part), "kubectl {line}: no {part:?} in\n{text}");
        }
    }

    async fn fails(&self, line: &str, expect: &str) {
        let arguments: Vec<&str> = line.split(' ').collect();
        let (success, text) = self.run(&arguments, "").await;
        assert!(!success && text.contains(expect), "kubectl {line}: {text}");
    }
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: registry.local/web:1, ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {containers: [{name: c, image: i}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everyday_commands() {
    let Some(k) = Session::start().await else { return };
    k.ok("version", "", &["Server Version: v1.36"]).await;
    k.ok("get ns", "", &["NAME", "STATUS", "default", "Active", "kube-node-lease"]).await;
    k.ok("api-resources", "", &["deployments", "deploy", "apps/v1", "configmaps", "cm"]).await;
    k.ok("apply -f -", WEB, &["deployment.apps/web created", "service/web created"]).await;
    k.ok("apply -f -", WEB, &["deployment.apps/web unchanged", "service/web unchanged"]).await;
    k.ok("apply -f -", &WEB.replace("web:1", "web:2"), &["deployment.apps/web configured"]).await;
    k.ok(
        "get deploy,svc",
        "",
        &["deployment.apps/web", "0/2", "service/web", "10.96.", "service/kubernetes", "443/TCP"],
    )
    .await;
    k.ok("get deploy web -o jsonpath={.spec.template.spec.containers[0].image}", "", &["registry.local/web:2"]).await;
    k.ok("get deploy -o wide", "", &["IMAGES", "SELECTOR", "app=web"]).await;
    k.ok("scale deploy web --replicas=3", "", &["scaled"]).await;
    k.ok("set image deploy/web c=registry.local/web:3", "", &["image updated"]).await;
    k.ok("label deploy web tier=x", "", &["labeled"]).await;
    k.ok("annotate deploy web note=y", "", &["annotated"]).await;
    k.ok("get deploy -l tier=x -o yaml", "", &["replicas: 3", "note: \"y\"", "web:3"]).await;
    k.ok("describe deploy web", "", &["registry.local/web:3", "3 desired"]).await;
    k.ok("explain deployment.spec.replicas", "", &["replicas <integer>"]).await;
    k.ok("delete deploy web --wait=false", "", &["deployment.apps \"web\" deleted"]).await;
    k.ok("delete svc web", "", &["deleted"]).await;
    k.fails("get deploy web", "Error from server (NotFound): deployments.apps \"web\" not found").await;
    k.fails("get nonsense", "the server doesn't have a resource type \"nonsense\"").await;
    k.stop.cancel();
}

/// kubectl sends these bodies as protobuf.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protobuf_commands() {
    let Some(k) = Session::start().await else { return };
    k.ok("create ns shop", "", &["namespace/shop created"]).await;
    k.ok("create deployment web --image=i --replicas=2 -n shop", "", &["deployment.apps/web created"]).await;
    k.ok("create configmap c --from-literal=a=b", "", &["configmap/c created"]).await;
    k.ok("get configmap c -o jsonpath={.data.a}", "", &["b"]).await;
    k.ok("create secret generic s --from-literal=a=b", "", &["secret/s created"]).await;
    k.ok("create job j --image=i", "", &["job.batch/j created"]).await;
    k.ok("create role r --verb=get --resource=pods", "", &["role.rbac.authorization.k8s.io/r created"]).await;
    k.ok("create rolebinding rb --role=r --user=bob", "", &["created"]).await;
    k.ok("create service clusterip cs --tcp=80:80", "", &["service/cs created"]).await;
    k.ok("autoscale deployment web --max=3 -n shop", "", &["autoscaled"]).await;
    k.ok("auth can-i create pods", "", &["yes"]).await;
    k.ok("auth whoami", "", &["jane", "system:masters"]).await;
    let (_, text) = k.run(&["auth", "can-i", "list", "pods", "--as=bob"], "").await;
    assert_eq!(text.trim(), "no");
    let (_, text) = k.run(&["auth", "can-i", "get", "pods", "--as=bob"], "").await;
    assert_eq!(text.trim(), "yes");
    k.ok("delete ns shop --wait=false", "", &["namespace \"shop\" deleted"]).await;
    k.ok("get ns shop", "", &["Terminating"]).await;
    k.fails("create configmap c -n shop", "because it is being terminated").await;
    k.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_and_other_users() {
    let Some(k) = Session::start().await else { return };
    let typo = WEB.replace("replicas: 2", "replica: 2");
    let (success, text) = k.run(&["apply", "-f", "-"], &typo).await;
    assert!(!success && text.contains("unknown field \"spec.replica\""), "{text}");
    k.fails(
        "get pods --as=bob",
        "pods is forbidden: User \"bob\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
    )
    .await;
    k.ok("get --raw /readyz?verbose", "", &["[+]store ok", "readyz check passed"]).await;
    k.ok("apply -f -", POD, &["pod/p created"]).await;
    k.ok("get pods", "", &["NAME", "READY", "STATUS", "p ", "0/1", "Pending"]).await;
    k.fails("logs p", "pod p does not have a host assigned").await;
    let (watched, ()) =
        tokio::join!(k.run(&["wait", "pod/p", "--for=jsonpath={.status.phase}=Running", "--timeout=10s"], ""), async {
            tokio::time::sleep(std::time::Duration::from_millis(700)).await;
            let status = serde_json::json!({ "status": { "phase": "Running" } });
            k.cluster.call("PATCH", "/api/v1/namespaces/default/pods/p/status", status).await.expect(200);
        });
    assert!(watched.0 && watched.1.contains("condition met"), "{watched:?}");
    k.fails("set image pod/p c=", "is invalid").await;
    k.ok("delete pod p", "", &["pod \"p\" deleted"]).await;
    assert!(k.cluster.store.view().get(b"/registry/core/pods/default/p").is_none());
    k.stop.cancel();
}

const APPLIED: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {tier: front}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: c
        image: registry.local/web:1
        ports: [{containerPort: 80}]
        env: [{name: A, value: '1'}, {name: B, value: '2'}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_side_apply() {
    let Some(k) = Session::start().await else { return };
    let apply = "apply --server-side -f -";
    k.ok(apply, APPLIED, &["deployment.apps/web serverside-applied"]).await;
    let revision = "get deploy web -o jsonpath={.metadata.resourceVersion}";
    let (_, before) = k.run(&revision.split(' ').collect::<Vec<_>>(), "").await;
    k.ok(apply, APPLIED, &["serverside-applied"]).await;
    k.ok(revision, "", &[&before]).await;
    k.ok(apply, &APPLIED.replace("web:1", "web:2"), &["serverside-applied"]).await;
    k.ok("get deploy web -o jsonpath={.spec.template.spec.containers[0].image}", "", &["web:2"]).await;
    // An item that is left out goes.
    k.ok(apply, &APPLIED.replace(", {name: B, value: '2'}", ""), &["serverside-applied"]).await;
    let (_, env) = k.run(&["get", "deploy", "web", "-o", "jsonpath={..env[*].name}"], "").await;
    assert_eq!(env, "A");
    // Somebody else takes the replicas.
    k.ok("scale deploy web --replicas=5", "", &["scaled"]).await;
    k.refuses(
        apply,
        APPLIED,
        &[
            "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: \
         .spec.replicas",
            "--force-conflicts",
        ],
    )
    .await;
    k.ok("get deploy web -o jsonpath={.spec.replicas}", "", &["5"]).await;
    k.ok("apply --server-side --force-conflicts -f -", APPLIED, &["serverside-applied"]).await;
    k.ok("get deploy web -o jsonpath={.spec.replicas}", "", &["2"]).await;
    // `kubectl edit` and `kubectl patch` send patches like this one.
    k.ok("patch deploy web -p {\"metadata\":{\"labels\":{\"tier\":\"back\"}}}", "", &["patched"]).await;
    k.refuses(apply, APPLIED, &["conflict with \"kubectl-patch\" using apps/v1: .metadata.labels.tier"]).await;
    let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, labels: {owner: me}}\n";
    k.ok("apply --server-side --field-manager=me -f -", other, &["serverside-applied"]).await;
    k.ok(
        "get deploy web -o yaml --show-managed-fields",
        "",
        &[
            "manager: me",
            "f:owner: {}",
            "operation: Apply",
            "manager: kubectl-patch",
            "k:{\"containerPort\":80,\"protocol\":\"TCP\"}:",
        ],
    )
    .await;
    let (_, hidden) = k.run(&["get", "deploy", "web", "-o", "yaml"], "").await;
    assert!(!hidden.contains("managedFields"), "{hidden}");
    k.ok("apply --server-side --dry-run=server --force-conflicts -f -", APPLIED, &["(server dry run)"]).await;
    k.ok("get deploy web -L tier", "", &["back"]).await;
    k.refuses(apply, &APPLIED.replace("replicas: 2", "replica: 2"), &["replica"]).await;
    k.ok("diff --server-side --force-conflicts -f -", &APPLIED.replace("front", "back"), &[""]).await;
    k.stop.cancel();
}

/// kubectl moves what it owned by client-side apply to server-side apply, and back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_client_side_apply_and_back() {
    let Some(k) = Session::start().await else { return };
    k.ok("apply -f -", APPLIED, &["deployment.apps/web created"]).await;
    k.ok("get deploy web -o yaml --show-managed-fields", "", &["manager: kubectl-client-side-apply"]).await;
    let changed = APPLIED.replace("web:1", "web:2").replace("{name: A, value: '1'}, ", "");
    k.ok("apply --server-side -f -", &changed, &["serverside-applied"]).await;
    let (_, text) = k.run(&["get", "deploy", "web", "-o", "yaml", "--show-managed-fields"], "").await;
    assert!(!text.contains("manager: kubectl-client-side-apply"), "{text}");
    assert!(text.contains("image: registry.local/web:2") && !text.contains("name: A\n"), "{text}");
    k.ok("apply -f -", &changed, &["configured"]).await;
    k.ok("apply -f -", &changed, &["unchanged"]).await;
    k.ok("apply -f -", APPLIED, &["configured"]).await;
    k.ok("get deploy web -o jsonpath={.spec.template.spec.containers[0].image}", "", &["web:1"]).await;
    k.stop.cancel();
}

/// A node with two ready pods, and a budget that lets one of them go.
async fn crowded_node(k: &Session) {
    let node = serde_json::json!({ "metadata": { "name": "n1" } });
    k.cluster.post("/api/v1/nodes", node).await.expect(201);
    let pods = "/api/v1/namespaces/default/pods";
    for name in ["one", "two"] {
        k.ok("apply -f -", &POD.replace("{name: p}", &format!("{{name: {name}, labels: {{app: web}}}}")), &[]).await;
        let binding = serde_json::json!({ "target": { "kind": "Node", "name": "n1" } });
        k.cluster.post(&format!("{pods}/{name}/binding"), binding).await.expect(201);
        let ready = serde_json::json!([{ "type": "Ready", "status": "True" }]);
        let status = serde_json::json!({ "status": { "phase": "Running", "conditions": ready } });
        k.cluster.call("PATCH", &format!("{pods}/{name}/status"), status).await.expect(200);
    }
    // As protobuf.
    k.ok("create poddisruptionbudget b --selector=app=web --min-available=1", "", &["created"]).await;
    let status = serde_json::json!({ "status": { "observedGeneration": 1, "disruptionsAllowed": 1, "expectedPods": 2,
        "currentHealthy": 2, "desiredHealthy": 1 } });
    let budget = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/b/status";
    k.cluster.call("PATCH", budget, status).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_drained_as_budgets_allow() {
    let Some(k) = Session::start().await else { return };
    crowded_node(&k).await;
    k.ok("get pdb", "", &["MIN AVAILABLE", "ALLOWED DISRUPTIONS", "b "]).await;
    let drain = "drain n1 --force --grace-period=0 --timeout=2s";
    k.refuses(
        drain,
        "",
        &[
            "node/n1 cordoned",
            " evicted",
            "error when evicting pods/",
            "Cannot evict pod as it would violate the pod's disruption budget.",
        ],
    )
    .await;
    k.ok("get pods", "", &["Running"]).await;
    k.ok("delete pdb b", "", &["deleted"]).await;
    k.ok(drain, "", &[" evicted", "node/n1 drained"]).await;
    k.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rarer_kinds() {
    let Some(k) = Session::start().await else { return };
    k.ok("get cs", "", &["etcd-0", "Healthy", "scheduler", "controller-manager"]).await;
    k.ok("get apiservices", "", &["v1.apps", "Local", "True"]).await;
    let key = KeyPair::generate().expect("key");
    let pem = params("bob", Some("dev")).serialize_request(&key).expect("request").pem().expect("PEM");
    use base64::Engine as _;
    let request = serde_json::json!({ "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": { "name": "bob" }, "spec": { "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"], "request": base64::engine::general_purpose::STANDARD.encode(pem) } });
    k.ok("create -f -", &request.to_string(), &["certificatesigningrequest.certificates.k8s.io/bob created"]).await;
    k.ok("get csr", "", &["kubernetes.io/kube-apiserver-client", "jane", "<none>", "Pending"]).await;
    // As protobuf.
    k.ok("certificate approve bob", "", &["approved"]).await;
    k.ok("get csr bob", "", &["Approved"]).await;
    let volume = "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: v}\nspec: {capacity: {storage: 1Gi}, \
                  accessModes: [ReadWriteOnce], hostPath: {path: /v}}";
    k.ok("apply -f -", volume, &["created"]).await;
    k.ok("get pv", "", &["1Gi", "RWO", "Retain"]).await;
    k.ok("apply -f -", POD, &["pod/p created"]).await;
    k.refuses("debug p --image=busybox --attach=false --profile=nonsense", "", &["unknown profile"]).await;
    k.ok("debug p --image=busybox --attach=false", "", &["Defaulting debug container name"]).await;
    k.ok("get pod p -o jsonpath={.spec.ephemeralContainers[0].image}", "", &["busybox"]).await;
    k.ok("create clusterrole all --aggregation-rule=app=web", "", &["created"]).await;
    k.ok("explain resourceslice.spec.pool", "", &["resourceSliceCount"]).await;
    k.ok("create priorityclass low --value=5", "", &["created"]).await;
    k.ok("create ingress web --rule=a.example.com/*=web:80", "", &["created"]).await;
    k.ok("get ingress,netpol,sc,csidrivers,flowschemas,deviceclasses,ipaddresses", "", &["a.example.com"]).await;
    k.stop.cancel();
}
