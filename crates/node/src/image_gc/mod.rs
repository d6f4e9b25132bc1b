//! Removes images when the disk is full, and native code that nobody uses.
//!
//! Owns: when it is looked, what counts as in use, and the Events of it. May not know: how images are kept, which of them
//! are users' data (`ImageService` does not offer these).

mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cri::{CachedImage, Collection, FileSystemUsage, ImageError};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, PodSpec};
use kube::api::ObjectMeta;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::inventory::take_inventory;
use crate::pod::execute::{NodeContext, chain};
use crate::supervisor::SupervisorHandle;
use plan::{Plan, Policy, Sightings, is_full, plan};

/// As the kubelet.
const POLICY: Policy = Policy { high_percent: 85, low_percent: 80, min_age: SignedDuration::from_secs(120) };
/// Native code that was not used for so long goes, and when the disk is full after this.
const CODE_UNUSED_FOR: Duration = Duration::from_secs(14 * 24 * 3600);
const CODE_UNUSED_FOR_WHEN_FULL: Duration = Duration::from_secs(3600);

/// Images of one pass.
const REMOVED_MAX: usize = 1000;

#[derive(Debug, Error)]
enum PassError {
    #[error("the node's containers are not known: {0}")]
    Containers(String),
    #[error("cannot {attempt}")]
    Images {
        attempt: &'static str,
        #[source]
        source: ImageError,
    },
    #[error("the file system of images has no size")]
    NoCapacity,
    #[error(
        "{removed} images were removed, and {wanted_bytes} bytes too many are in use: no other image may be removed"
    )]
    Stuck { removed: usize, wanted_bytes: u64 },
}

/// Looks from time to time.
pub struct ImageCollector {
    context: Arc<NodeContext>,
    supervisor: SupervisorHandle,
    sightings: Sightings,
}

/// What there is at one time.
struct Observed {
    images: Vec<CachedImage>,
    in_use: BTreeSet<String>,
    usage: FileSystemUsage,
    now: Timestamp,
}

impl ImageCollector {
    pub fn new(context: Arc<NodeContext>, supervisor: SupervisorHandle) -> Self {
        Self { context, supervisor, sightings: Sightings::default() }
    }

    /// Runs until the agent stops.
    pub async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.look_forever() => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn look_forever(&mut self) {
        let mut has_failed = false;
        loop {
            tokio::time::sleep(self.context.config.image_gc_every).await;
            match self.pass().await {
                Ok(removed) => {
                    has_failed = false;
                    if removed > 0 {
                        tracing::info!(removed, "images that no container uses were removed");
                    }
                }
                Err(error) => {
                    let message = chain(&error);
                    tracing::warn!(error = message, "images are not removed as they should be");
                    if let PassError::Stuck { .. } = error {
                        self.warn("FreeDiskSpaceFailed", &message);
                    }
                    // Once may be a node that has just begun.
                    if has_failed {
                        self.warn("ImageGCFailed", &message);
                    }
                    has_failed = true;
                }
            }
        }
    }

    /// Answers how many images were removed.
    async fn pass(&mut self) -> Result<usize, PassError> {
        let mut observed = self.observe().await?;
        self.forget_code(CODE_UNUSED_FOR).await;
        // What no image needs goes now and then, however much room there is.
        self.collect(Vec::new(), &observed).await?;
        if observed.usage.capacity_bytes == 0 {
            return Err(PassError::NoCapacity);
        }
        if !is_full(POLICY, observed.usage) {
            return Ok(0);
        }
        self.forget_code(CODE_UNUSED_FOR_WHEN_FULL).await;
        for removed in 0..REMOVED_MAX {
            observed = self.observe().await?;
            match plan(POLICY, observed.usage, &observed.images, &self.sightings, observed.now) {
                Plan::Nothing => return Ok(removed),
                Plan::Remove(digest) => self.collect(vec![digest], &observed).await?,
                Plan::Stuck { wanted_bytes } => return Err(PassError::Stuck { removed, wanted_bytes }),
                Plan::NoCapacity => return Err(PassError::NoCapacity),
            }
        }
        Ok(REMOVED_MAX)
    }

    async fn observe(&mut self) -> Result<Observed, PassError> {
        let failed = |attempt| move |source| PassError::Images { attempt, source };
        let inventories = take_inventory(&self.context).await.map_err(PassError::Containers)?;
        let containers = inventories.values().flat_map(|inventory| &inventory.containers);
        let manifest = |image_id: &str| Some(image_id.rsplit_once('@')?.1.to_owned());
        let in_use: BTreeSet<String> =
            containers.filter_map(|container| manifest(&container.status.image_id)).collect();
        let images = self.context.images.cached(&self.wanted().await).await.map_err(failed("list the images"))?;
        let usage = self.context.images.file_system().await.map_err(failed("look at the disk"))?;
        let now = Timestamp::now();
        self.sightings.note(&images, &in_use, now);
        Ok(Observed { images, in_use, usage, now })
    }

    /// What the pods of this node name: a container that is still to be made has none yet.
    async fn wanted(&self) -> Vec<String> {
        let pods = self.supervisor.pods().await;
        let specs = pods.iter().filter_map(|pod| pod.pod().ok()?.spec);
        specs.flat_map(|spec| images_of(&spec)).collect()
    }

    async fn collect(&self, images: Vec<String>, observed: &Observed) -> Result<(), PassError> {
        let in_use = observed.in_use.iter().cloned().collect();
        let collected = self.context.images.collect(Collection { images: images.clone(), in_use }).await;
        let bytes = collected.map_err(|source| PassError::Images { attempt: "remove images", source })?;
        if bytes > 0 || !images.is_empty() {
            tracing::info!(?images, bytes, "content of images was removed");
        }
        Ok(())
    }

    async fn forget_code(&self, unused_for: Duration) {
        for (handler, runtime) in self.context.runtimes.iter() {
            match runtime.forget_prepared(unused_for).await {
                Ok(0) => {}
                Ok(bytes) => tracing::info!(runtime = handler.as_str(), bytes, "what nobody used was removed"),
                Err(error) => tracing::warn!(runtime = handler.as_str(), error = chain(&error), "nothing is removed"),
            }
        }
    }

    fn warn(&self, reason: &str, message: &str) {
        let name = self.context.config.node_name.clone();
        let node =
            Node { metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() }, ..Node::default() };
        let mut note = reconcile::Note::warning(&node, reason, message);
        // As the kubelet names its node in Events, and as `kubectl describe node` looks for them.
        note.regarding.uid = Some(name);
        self.context.recorder.record(note);
    }
}

/// The image references of all containers.
fn images_of(spec: &PodSpec) -> Vec<String> {
    let init = spec.init_containers.iter().flatten().map(|container| &container.image);
    let main = spec.containers.iter().map(|container| &container.image);
    let added = spec.ephemeral_containers.iter().flatten().map(|container| &container.image);
    init.chain(main).chain(added).flatten().cloned().collect()
}
