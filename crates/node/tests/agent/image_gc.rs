//! A disk that is full of images.

use std::time::Duration;

use cri::{CachedImage, FileSystemUsage};
use serde_json::json;

use crate::harness::Harness;

fn image(digest: &str) -> CachedImage {
    CachedImage { digest: digest.to_owned(), manifests: vec![digest.to_owned()], size_bytes: 100 }
}

#[tokio::test]
async fn a_full_disk_that_cannot_be_emptied_is_told() {
    let harness = Harness::start_with(Some(Duration::from_millis(50))).await;
    harness.until_node_ready().await;
    harness.apply("web", json!({"containers": [{"name": "web", "image": "wasm:v1"}]}));
    harness.until_running("web").await;
    // One is in use, and the other is young.
    let usage = FileSystemUsage { capacity_bytes: 1000, available_bytes: 100 };
    harness.images.fill(vec![image("sha256:11"), image("sha256:22")], usage);
    harness.until_event("n1", "FreeDiskSpaceFailed: 0 images were removed, and 100 bytes too many are in use").await;
    harness.until_event("n1", "ImageGCFailed").await;
    let collections = harness.images.collections();
    assert!(collections.iter().all(|collection| collection.images.is_empty()));
    let used = collections.last().unwrap().in_use.clone();
    assert_eq!(used, ["sha256:11"], "what containers have stays");
}
