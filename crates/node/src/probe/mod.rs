//! Probes: an engine that decides (`engine`), checks that look (`check`), and one task per probe
//! of a running container that joins the two (`run`).

pub mod check;
mod check_tls;
mod engine;
mod grpc;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cri::{ContainerId, RuntimeService};
use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::mpsc;

pub use engine::{Checked, Command, Engine, ProbeKind, Settings, Verdict};

use check::{HttpCheck, TcpCheck};
use grpc::GrpcCheck;

/// What a probe task tells the pod's worker.
#[derive(Debug)]
pub struct ProbeReport {
    pub container: String,
    pub id: ContainerId,
    pub kind: ProbeKind,
    pub finding: Finding,
}

#[derive(Debug)]
pub enum Finding {
    Verdict(Verdict),
    /// A failed check that counts, for the `Unhealthy` Event.
    Unhealthy(String),
}

/// One probe of one running container.
pub struct ProbeTask {
    pub kind: ProbeKind,
    pub container: Container,
    pub id: ContainerId,
    pub runtime: Arc<dyn RuntimeService>,
    pub pod_ip: IpAddr,
    pub reports: mpsc::Sender<ProbeReport>,
    /// The verdict carried over from before the agent started.
    pub carried: Option<Verdict>,
}

/// The probe of a kind, when the container has it.
pub fn of(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_ref(),
        ProbeKind::Liveness => container.liveness_probe.as_ref(),
        ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

impl ProbeTask {
    /// Runs until the worker drops the task or its end of the channel.
    pub async fn run(self) {
        let Some(probe) = of(&self.container, self.kind) else { return };
        let settings = Settings::of(probe, self.kind);
        let timeout = settings.timeout;
        let mut engine = Engine::new(settings, self.carried);
        let mut commands = engine.begin();
        loop {
            let mut wait = None;
            for command in commands {
                let finding = match command {
                    Command::CheckAfter(delay) => {
                        wait = Some(delay);
                        continue;
                    }
                    Command::Report(verdict) => Finding::Verdict(verdict),
                    Command::TellUnhealthy(message) => Finding::Unhealthy(message),
                };
                if self.report(finding).await.is_err() {
                    return;
                }
            }
            let Some(wait) = wait else { return };
            tokio::time::sleep(wait).await;
            let checked = self.check(probe, timeout).await;
            commands = engine.on_checked(checked, wait);
        }
    }

    async fn report(&self, finding: Finding) -> Result<(), mpsc::error::SendError<ProbeReport>> {
        let (container, id, kind) = (self.container.name.clone(), self.id.clone(), self.kind);
        self.reports.send(ProbeReport { container, id, kind, finding }).await
    }

    async fn check(&self, probe: &Probe, timeout: Duration) -> Checked {
        let result = if let Some(get) = &probe.http_get {
            match HttpCheck::new(get, &self.container, self.pod_ip) {
                Ok(http) => check::http(&http, timeout).await,
                Err(why) => Err(why),
            }
        } else if let Some(socket) = &probe.tcp_socket {
            match TcpCheck::new(socket, &self.container, self.pod_ip) {
                Ok(tcp) => check::tcp(&tcp, timeout).await,
                Err(why) => Err(why),
            }
        } else if let Some(exec) = &probe.exec {
            let command = exec.command.clone().unwrap_or_default();
            check::exec(self.runtime.as_ref(), &self.id, &command, timeout).await
        } else if let Some(action) = &probe.grpc {
            match GrpcCheck::new(action, self.pod_ip) {
                Ok(check) => grpc::grpc(&check, timeout).await,
                Err(why) => Err(why),
            }
        } else {
            Ok(())
        };
        match result {
            Ok(()) => Checked::Passed,
            Err(why) => Checked::Failed(why),
        }
    }
}
