//! How client commands reach a cluster: a kubeconfig made into clients.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::cli::{AccessArgs, DATA_DIR};

/// A cluster that can be talked to.
pub struct Access {
    pub config: kube::Config,
    pub path: PathBuf,
}

impl Access {
    /// Reads the kubeconfig a command should use.
    pub async fn load(args: &AccessArgs) -> Result<Self> {
        let default = Path::new(DATA_DIR).join("admin.kubeconfig");
        let path = args.kubeconfig.clone().unwrap_or(default);
        if !path.exists() {
            bail!(
                "there is no kubeconfig at {}: is the cluster up (`knarr up`)? name another with --kubeconfig",
                path.display()
            );
        }
        let kubeconfig =
            Kubeconfig::read_from(&path).with_context(|| format!("cannot read kubeconfig {}", path.display()))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("kubeconfig {} cannot be used", path.display()))?;
        Ok(Self { config, path })
    }

    /// A client of the Kubernetes API.
    pub fn client(&self) -> Result<kube::Client> {
        kube::Client::try_from(self.config.clone()).context("cannot make a client from the kubeconfig")
    }

    /// The TLS side of the same identity, for the registry.
    pub fn tls(&self) -> Result<rustls::ClientConfig> {
        use kube::client::ConfigExt;
        self.config.rustls_client_config().map_err(|e| anyhow!("cannot use the kubeconfig's certificates: {e}"))
    }

    /// `127.0.0.1:6443`
    pub fn authority(&self) -> Result<String> {
        let authority = self.config.cluster_url.authority().context("the kubeconfig names no server")?;
        Ok(authority.to_string())
    }
}

/// A refusal in the server's own words; the error's text has the whole Status in it.
pub fn told(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow!("{}", status.message),
        error => error.into(),
    }
}
