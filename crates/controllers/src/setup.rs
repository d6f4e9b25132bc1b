//! What a controller is given when it starts: the shared watches to subscribe to, and a way to run its workers.

use std::fmt::Debug;
use std::sync::Arc;

use api::function::Function;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, ReplicationController, Secret,
    Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use reconcile::pod::Pod;
use reconcile::{
    CancellationToken, Clock, Controller, Executor, Recorder, Reflector, SystemClock, TaskTracker, WorkQueue,
};
use serde::de::DeserializeOwned;

use crate::certificates::ClientSigner;
use crate::customs::Customs;

/// The namespace of node heartbeats.
pub const NODE_LEASE_NAMESPACE: &str = "kube-node-lease";
/// The namespace of what the cluster itself needs.
pub const SYSTEM_NAMESPACE: &str = "kube-system";
/// The type of a bootstrap token's Secret.
pub const BOOTSTRAP_TOKEN: &str = "bootstrap.kubernetes.io/token";
/// The ConfigMap with the cluster's CA, one in each namespace.
pub const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";

/// What the composition root decides.
#[derive(Clone, Debug, Default)]
pub struct ControllersConfig {
    /// PEM of the CA which signs the API server's certificate.
    pub cluster_ca_pem: String,
    /// Signs requests for clients' certificates; without it they stay unanswered.
    pub client_signer: Option<Arc<dyn ClientSigner>>,
}

/// Who the control loops are to the API.
#[derive(Clone)]
pub struct Clients {
    /// Reads and writes what there is to control.
    pub controllers: Client,
    /// Calls functions when their schedules say so. It needs no other right.
    pub triggers: Client,
}

/// One reflector per kind, shared by all controllers; subscribe before they are spawned.
#[derive(Debug)]
pub struct Watches {
    pub pods: Reflector<Pod>,
    pub replica_sets: Reflector<ReplicaSet>,
    pub deployments: Reflector<Deployment>,
    pub stateful_sets: Reflector<StatefulSet>,
    pub replication_controllers: Reflector<ReplicationController>,
    pub disruption_budgets: Reflector<PodDisruptionBudget>,
    pub cluster_roles: Reflector<ClusterRole>,
    pub certificate_requests: Reflector<CertificateSigningRequest>,
    pub functions: Reflector<Function>,
    pub jobs: Reflector<Job>,
    pub cron_jobs: Reflector<CronJob>,
    pub daemon_sets: Reflector<DaemonSet>,
    pub controller_revisions: Reflector<ControllerRevision>,
    pub autoscalers: Reflector<HorizontalPodAutoscaler>,
    pub claims: Reflector<PersistentVolumeClaim>,
    pub volumes: Reflector<PersistentVolume>,
    pub services: Reflector<Service>,
    pub endpoint_slices: Reflector<EndpointSlice>,
    pub endpoints: Reflector<Endpoints>,
    pub namespaces: Reflector<Namespace>,
    pub nodes: Reflector<Node>,
    /// Only those of `NODE_LEASE_NAMESPACE`.
    pub node_leases: Reflector<Lease>,
    pub service_accounts: Reflector<ServiceAccount>,
    /// Only those named `ROOT_CA_CONFIG_MAP`.
    pub root_ca_config_maps: Reflector<ConfigMap>,
    /// Only those of `BOOTSTRAP_TOKEN` in `SYSTEM_NAMESPACE`.
    pub bootstrap_tokens: Reflector<Secret>,
}

/// Handed to each controller's `start`.
pub struct Setup {
    pub config: ControllersConfig,
    pub client: Client,
    pub trigger_client: Client,
    pub clock: Arc<dyn Clock>,
    pub watches: Watches,
    /// Kinds that users defined.
    pub customs: Customs,
    pub tracker: TaskTracker,
    pub shutdown: CancellationToken,
}

impl Setup {
    pub fn new(clients: Clients, config: ControllersConfig, tracker: TaskTracker, shutdown: CancellationToken) -> Self {
        let watches = Watches {
            pods: Reflector::of_kind(),
            replica_sets: Reflector::of_kind(),
            deployments: Reflector::of_kind(),
            stateful_sets: Reflector::of_kind(),
            replication_controllers: Reflector::of_kind(),
            disruption_budgets: Reflector::of_kind(),
            cluster_roles: Reflector::of_kind(),
            certificate_requests: Reflector::of_kind(),
            functions: Reflector::of_kind(),
            jobs: Reflector::of_kind(),
            cron_jobs: Reflector::of_kind(),
            daemon_sets: Reflector::of_kind(),
            controller_revisions: Reflector::of_kind(),
            autoscalers: Reflector::of_kind(),
            claims: Reflector::of_kind(),
            volumes: Reflector::of_kind(),
            services: Reflector::of_kind(),
            endpoint_slices: Reflector::of_kind(),
            endpoints: Reflector::of_kind(),
            namespaces: Reflector::of_kind(),
            nodes: Reflector::of_kind(),
            node_leases: Reflector::of_kind(),
            service_accounts: Reflector::of_kind(),
            root_ca_config_maps: Reflector::of_kind(),
            bootstrap_tokens: Reflector::of_kind(),
        };
        let Clients { controllers: client, triggers: trigger_client } = clients;
        let (clock, customs) = (Arc::new(SystemClock), Customs::default());
        Self { config, client, trigger_client, clock, watches, customs, tracker, shutdown }
    }

    /// An executor whose Events name `component` as their source.
    pub fn executor(&self, component: &str) -> Executor {
        let recorder = Recorder::spawn(self.client.clone(), component, "", &self.tracker, self.shutdown.child_token());
        Executor::new(self.client.clone(), recorder)
    }

    /// Runs `controller` on `queue`, with `workers` keys at a time, Events coming from `component`.
    pub fn run<C: Controller>(&self, controller: C, queue: WorkQueue<C::Key>, component: &str, workers: usize) {
        let executor = self.executor(component);
        let context = (&self.tracker, self.shutdown.child_token());
        reconcile::spawn_controller(Arc::new(controller), queue, executor, workers, context);
    }

    /// Starts all watches; nobody can subscribe any more.
    pub fn spawn_watches(self) {
        let Self { client, watches, customs, tracker, shutdown, .. } = self;
        customs.spawn(client.clone(), &tracker, shutdown.child_token());
        let all = watcher::Config::default;
        let start = Start { client: &client, tracker: &tracker, shutdown: &shutdown };
        start.all(watches.pods);
        start.all(watches.replica_sets);
        start.all(watches.deployments);
        start.all(watches.stateful_sets);
        start.all(watches.replication_controllers);
        start.all(watches.disruption_budgets);
        start.all(watches.cluster_roles);
        start.all(watches.certificate_requests);
        start.all(watches.functions);
        start.all(watches.jobs);
        start.all(watches.cron_jobs);
        start.all(watches.daemon_sets);
        start.all(watches.controller_revisions);
        start.all(watches.autoscalers);
        start.all(watches.claims);
        start.all(watches.volumes);
        start.all(watches.services);
        start.all(watches.endpoint_slices);
        start.all(watches.endpoints);
        start.all(watches.namespaces);
        start.all(watches.nodes);
        start.all(watches.service_accounts);
        start.some(watches.node_leases, Api::namespaced(client.clone(), NODE_LEASE_NAMESPACE), all());
        let by_name = all().fields(&format!("metadata.name={ROOT_CA_CONFIG_MAP}"));
        start.some(watches.root_ca_config_maps, Api::all(client.clone()), by_name);
        let by_type = all().fields(&format!("type={BOOTSTRAP_TOKEN}"));
        start.some(watches.bootstrap_tokens, Api::namespaced(client.clone(), SYSTEM_NAMESPACE), by_type);
    }
}

struct Start<'a> {
    client: &'a Client,
    tracker: &'a TaskTracker,
    shutdown: &'a CancellationToken,
}

impl Start<'_> {
    fn all<K>(&self, reflector: Reflector<K>)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        self.some(reflector, Api::all(self.client.clone()), watcher::Config::default());
    }

    fn some<K>(&self, reflector: Reflector<K>, api: Api<K>, config: watcher::Config)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        reflector.spawn(api, config, self.tracker, self.shutdown.child_token());
    }
}
