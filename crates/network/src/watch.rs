//! Keeps the Service rules and the DNS zone at what the API server says: observe (two caches),
//! compile (pure), apply. Then runtimes are told the same, as a table.
//!
//! One task owns both. Changes that come while it works are taken together the next time, so a
//! burst of pods becoming ready costs a few transactions, not one each.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cri::ServiceTable;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use reconcile::Cache;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use crate::activator::{Link, Routes};
use crate::dns::{Zone, ZoneConfig};
use crate::service_proxy::{Frontend, NodeView, ServiceProxy, Tables, Warning, compile, publish};

/// Changes are collected this long after the first.
const GATHER: Duration = Duration::from_millis(5);
/// Whether our table is still there is looked up this often.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_secs(1);

/// What the loop works with.
pub(crate) struct Sync {
    pub(crate) services: Cache<Service>,
    pub(crate) slices: Cache<EndpointSlice>,
    pub(crate) node: NodeView,
    pub(crate) zone_config: ZoneConfig,
    pub(crate) zone: Arc<ArcSwap<Zone>>,
    /// Who holds connections to Services without endpoints.
    pub(crate) activator: Link,
    /// What the kernel does, for those who call without it.
    pub(crate) table: watch::Sender<Arc<ServiceTable>>,
}

/// The kernel's rules as they should be, and what they bring to the activator.
struct Compiled {
    tables: Tables,
    routes: Routes,
    captured: BTreeSet<Frontend>,
    table: ServiceTable,
}

/// Why the loop goes on.
enum Woken {
    Changed,
    CheckDue,
    RetryDue,
    Ended,
}

impl Sync {
    /// Runs until `shutdown`; the rules stay, for the next process to adopt.
    pub(crate) async fn run(mut self, proxy: ServiceProxy, shutdown: CancellationToken) {
        let ready = async {
            self.services.ready().await && self.slices.ready().await && self.activator.deployments.ready().await
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            ready = ready => if !ready { return },
        }
        let (mut services, mut slices) = (self.services.changes(), self.slices.changes());
        let mut deployments = self.activator.deployments.changes();
        let mut check = interval_at(Instant::now() + CHECK_INTERVAL, CHECK_INTERVAL);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut proxy, mut warned) = (Some(proxy), Vec::new());
        let mut woken = Woken::Changed;
        loop {
            let (tables, led) = match woken {
                Woken::Ended => return,
                Woken::CheckDue => (None, None),
                Woken::Changed | Woken::RetryDue => {
                    let Compiled { tables, routes, captured, table } = self.compile(&mut warned);
                    (Some(tables), Some((routes, captured, table)))
                }
            };
            let Some(retry) = step(&mut proxy, tables).await else { return };
            if let Some((routes, captured, table)) = led {
                // Rules that could not be changed lead nobody anywhere new.
                self.activator.applied(routes, if retry { BTreeSet::new() } else { captured });
                if !retry {
                    self.tell(table);
                }
            }
            let changed = |alive: bool| if alive { Woken::Changed } else { Woken::Ended };
            woken = tokio::select! {
                () = shutdown.cancelled() => Woken::Ended,
                alive = services.changed() => changed(alive),
                alive = slices.changed() => changed(alive),
                alive = deployments.changed() => changed(alive),
                alive = self.activator.leaving.changed() => changed(alive.is_ok()),
                _ = check.tick() => Woken::CheckDue,
                () = sleep(RETRY), if retry => Woken::RetryDue,
            };
            if matches!(woken, Woken::Changed) {
                sleep(GATHER).await;
            }
        }
    }

    /// Nobody is woken for a table that is as it was.
    fn tell(&self, table: ServiceTable) {
        self.table.send_if_modified(|known| {
            let changed = **known != table;
            if changed {
                *known = Arc::new(table);
            }
            changed
        });
    }

    /// Swaps the zone and returns the tables.
    fn compile(&mut self, warned: &mut Vec<Warning>) -> Compiled {
        let services: Vec<Arc<Service>> = self.services.snapshot().iter().cloned().collect();
        let slices: Vec<Arc<EndpointSlice>> = self.slices.snapshot().iter().cloned().collect();
        let deployments: Vec<Arc<Deployment>> = self.activator.deployments.snapshot().iter().cloned().collect();
        let (mut tables, mut warnings) = compile(&services, &slices, &self.node);
        let (routes, more) = Routes::compile(&services, &slices, &deployments, &self.node);
        warnings.extend(more);
        self.activator.leaving.mark_unchanged();
        let captured = self.activator.capture(&routes, &mut tables);
        let table = publish(&tables, &services, |frontend| routes.connections_count(frontend));
        self.zone.store(Arc::new(Zone::compile(self.zone_config.clone(), &services, &slices)));
        warnings.sort();
        for warning in warnings.iter().filter(|warning| !warned.contains(warning)) {
            let Warning { namespace, service, message } = warning;
            tracing::warn!(namespace, service, message, "a Service is not served as written");
        }
        *warned = warnings;
        Compiled { tables, routes, captured, table }
    }
}

/// Checks the kernel's table and applies new ones. Returns whether to come back soon; `None` when
/// the proxy is lost (its thread panicked).
async fn step(proxy: &mut Option<ServiceProxy>, tables: Option<Tables>) -> Option<bool> {
    let mut taken = proxy.take()?;
    let work = tokio::task::spawn_blocking(move || {
        let outcome = match tables {
            Some(tables) => taken.apply(tables),
            None => taken.check().map(|()| 0),
        };
        (taken, outcome)
    });
    let (taken, outcome) = work.await.ok()?;
    let stale = taken.is_stale();
    *proxy = Some(taken);
    match outcome {
        Ok(elements) => tracing::debug!(elements, "Service rules are up to date"),
        Err(error) => tracing::error!(%error, "Service rules could not be changed; trying again"),
    }
    Some(stale)
}
