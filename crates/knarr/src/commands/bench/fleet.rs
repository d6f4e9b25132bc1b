//! Several servers that the benchmark starts for itself, on the loopback.
//!
//! Owns: starting them, letting them join, killing and restarting them.
//! May not know: what is measured.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::process::Command;

use super::Settings;
use super::own_cluster::{data_dir, free_port, knarr};
use super::own_process::OwnProcess;
use crate::access::Access;
use crate::cli::AccessArgs;
use crate::cluster::wire::MemberList;
use crate::commands::member;
use crate::commands::server::UP;

const JOINED_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// One server.
pub struct Server {
    listen: SocketAddr,
    peer_listen: SocketAddr,
    /// `None` while it is killed.
    process: Option<OwnProcess>,
}

/// Servers of one cluster; the first founded it. Member ids count from one.
pub struct Fleet {
    pub servers: Vec<Server>,
    dir: TempDir,
}

impl Fleet {
    pub async fn start(settings: &Settings, size: usize) -> Result<Self> {
        let dir = data_dir(&settings.dir)?;
        let mut fleet = Self { servers: Vec::new(), dir };
        fleet.add(None).await?;
        if size > 1 {
            let token = fleet.token().await?;
            for _ in 1..size {
                fleet.add(Some(&token)).await?;
            }
        }
        Ok(fleet)
    }

    async fn token(&self) -> Result<PathBuf> {
        let output = knarr()?
            .args(["token", "create", "--kubeconfig"])
            .arg(self.kubeconfig(0))
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot make a token")?;
        if !output.status.success() {
            bail!("cannot make a token: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let path = self.dir.path().join("token");
        std::fs::write(&path, &output.stdout).context("cannot keep the token")?;
        Ok(path)
    }

    async fn add(&mut self, token: Option<&PathBuf>) -> Result<()> {
        let (listen, peer_listen) = (free_port()?, free_port()?);
        self.servers.push(Server { listen, peer_listen, process: None });
        let mut join = Vec::new();
        if let Some(token) = token {
            join.extend(["--join".to_owned(), format!("https://{}", self.servers[0].listen)]);
            join.extend(["--token-file".to_owned(), token.display().to_string()]);
        }
        self.run(self.servers.len() - 1, &join).await.map(drop)
    }

    fn command(&self, at: usize, more: &[String]) -> Result<Command> {
        let Server { listen, peer_listen, .. } = &self.servers[at];
        let mut command = knarr()?;
        command.args(["server", "--no-node", "--data-dir"]).arg(self.folder(at));
        command.args(["--listen", &listen.to_string(), "--peer-listen", &peer_listen.to_string()]).args(more);
        command.kill_on_drop(true);
        Ok(command)
    }

    async fn run(&mut self, at: usize, more: &[String]) -> Result<Duration> {
        let process = OwnProcess::start(self.command(at, more)?, UP).await.context("`knarr server`")?;
        let ready_time = process.ready_time;
        self.servers[at].process = Some(process);
        Ok(ready_time)
    }

    /// Starts a killed server again; how long it took until it was up.
    pub async fn restart(&mut self, at: usize) -> Result<Duration> {
        self.run(at, &[]).await
    }

    pub async fn kill(&mut self, at: usize) -> Result<()> {
        self.servers[at].process.take().context("the server does not run")?.kill().await
    }

    pub fn pid(&self, at: usize) -> Option<u32> {
        self.servers[at].process.as_ref()?.pid()
    }

    fn folder(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("server-{}", at + 1))
    }

    pub fn kubeconfig(&self, at: usize) -> PathBuf {
        self.folder(at).join("admin.kubeconfig")
    }

    pub async fn access(&self, at: usize) -> Result<Access> {
        Access::load(&AccessArgs { kubeconfig: Some(self.kubeconfig(at)) }).await
    }

    /// The members as a server sees them.
    pub async fn members(&self, at: usize) -> Result<MemberList> {
        member::list(&self.access(at).await?.client()?).await
    }

    /// How often each server has synced.
    pub async fn syncs(&self) -> Result<Vec<u64>> {
        let mut syncs = Vec::with_capacity(self.servers.len());
        for at in 0..self.servers.len() {
            syncs.push(self.members(at).await?.syncs);
        }
        Ok(syncs)
    }

    /// The index of the server that leads, as another one sees it.
    pub async fn leader(&self, seen_by: usize) -> Result<usize> {
        let found = async {
            loop {
                if let Ok(list) = self.members(seen_by).await
                    && let Some(leader) = list.leader
                {
                    return usize::try_from(leader - 1).expect("a few members");
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(JOINED_TIMEOUT, found).await.context("nobody leads")
    }

    pub async fn stop(self) -> Result<()> {
        for server in self.servers {
            if let Some(process) = server.process {
                process.stop().await?;
            }
        }
        self.dir.close().context("cannot remove the data directories")
    }
}
