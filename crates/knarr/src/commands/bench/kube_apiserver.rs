//! A kube-apiserver with an etcd to compare with: the processes, and a way in.
//!
//! Owns: the flags and certificates that one API server on this machine needs, without any controllers. May not know:
//! what is compared.

use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use http::StatusCode;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::Settings;
use super::api::Endpoint;
use super::etcd::Etcd;
use super::load;
use super::own_cluster::{data_dir, free_port};
use super::session::{Session, create};
use crate::access::Access;
use crate::cli::AccessArgs;
use crate::kubeconfig::Kubeconfig;
use crate::pki::{Authority, AuthorityName, Identity, write_private};

const READY_TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// As wide as its own network needs it here: nobody uses a Service.
const SERVICE_RANGE: &str = "10.96.0.0/16";

pub struct KubeApiserver {
    pub kubeconfig: PathBuf,
    child: Child,
    etcd: Etcd,
    dir: TempDir,
}

impl KubeApiserver {
    /// With durable writes, TLS and RBAC, as Knarr has them; everything else as it is by default.
    pub async fn start(program: &Path, etcd: &PathBuf, settings: &Settings) -> Result<Self> {
        let dir = data_dir(&settings.dir)?;
        let etcd = Etcd::start(etcd, 1, settings).await?;
        let address = free_port()?;
        let kubeconfig = certify(dir.path(), address.ip(), &format!("https://{address}"))?;
        let flag = |name: &str, value: &dyn Display| format!("--{name}={value}");
        let file = |name: &str, file: &str| flag(name, &dir.path().join(file).display());
        let mut command = Command::new(program);
        command.args([
            flag("etcd-servers", &format!("http://{}", etcd.leader)),
            flag("bind-address", &address.ip()),
            flag("advertise-address", &address.ip()),
            // It could not announce a loopback address to pods, and nobody asks.
            flag("endpoint-reconciler-type", &"none"),
            flag("secure-port", &address.port()),
            flag("service-cluster-ip-range", &SERVICE_RANGE),
            flag("authorization-mode", &"RBAC"),
            flag("service-account-issuer", &"https://kubernetes.default.svc"),
            file("client-ca-file", "ca.crt"),
            file("tls-cert-file", "server.crt"),
            file("tls-private-key-file", "server.key"),
            file("service-account-key-file", "accounts.pub"),
            file("service-account-signing-key-file", "accounts.key"),
        ]);
        let log = std::fs::File::create(dir.path().join("log")).context("cannot make kube-apiserver's log")?;
        command.stdin(std::process::Stdio::null()).stderr(log).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut started = Self { kubeconfig, child, etcd, dir };
        let ready = tokio::time::timeout(READY_TIMEOUT, started.until_ready()).await;
        let Ok(Ok(())) = ready else {
            let log = std::fs::read_to_string(started.dir.path().join("log")).unwrap_or_default();
            let last = log.lines().last().unwrap_or_default();
            return Err(anyhow!("kube-apiserver was not ready in {READY_TIMEOUT:?}, or ended; it said last: {last}"));
        };
        Ok(started)
    }

    async fn until_ready(&mut self) -> Result<()> {
        let access = Access::load(&AccessArgs { kubeconfig: Some(self.kubeconfig.clone()) }).await?;
        let endpoint = Endpoint::new(&access)?;
        let readyz = || async {
            let mut sender = endpoint.connect().await?;
            load::exchange(&mut sender, load::get(&endpoint.host, "/readyz")).await
        };
        while !matches!(readyz().await, Ok(StatusCode::OK)) {
            ensure!(self.child.try_wait().context("cannot wait for kube-apiserver")?.is_none(), "it ended");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// What a controller would make in the session's namespace: pods are refused without it.
    pub async fn prepare(session: &Session<'_>) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(session.client.clone(), &session.namespace);
        let account = json!({ "metadata": { "name": "default" } });
        create(&accounts, account).await.map(drop).context("cannot create a service account")
    }

    /// Its own process and etcd's.
    pub fn pids(&self) -> Vec<u32> {
        self.child.id().into_iter().chain(self.etcd.pids()).collect()
    }

    pub async fn stop(mut self) -> Result<()> {
        self.child.kill().await.context("cannot stop kube-apiserver")?;
        self.etcd.stop().await?;
        self.dir.close().context("cannot remove kube-apiserver's files")
    }
}

/// Writes what its flags name into `dir`, and the kubeconfig of an administrator.
fn certify(dir: &Path, address: IpAddr, server: &str) -> Result<PathBuf> {
    let authority = Authority::open(dir, AuthorityName::Cluster)?;
    let leaf = authority.server("kube-apiserver", &[], &[address])?;
    let admin = authority.client(&Identity { user: "admin", groups: &["system:masters"] })?;
    // It signs tokens with nothing newer, so it cannot be a key like the others; and it wants the public half by itself.
    let accounts = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key for tokens")?;
    let text = Kubeconfig { server, user: "admin", ca_pem: authority.certificate_pem(), leaf: &admin }.render();
    let kubeconfig = dir.join("admin.kubeconfig");
    write_private(&dir.join("server.crt"), leaf.certificate_pem.as_bytes())?;
    write_private(&dir.join("server.key"), leaf.key_pem.as_bytes())?;
    write_private(&dir.join("accounts.pub"), accounts.public_key_pem().as_bytes())?;
    write_private(&dir.join("accounts.key"), accounts.serialize_pem().as_bytes())?;
    write_private(&kubeconfig, text.as_bytes())?;
    Ok(kubeconfig)
}
