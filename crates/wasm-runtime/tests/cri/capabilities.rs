//! What guests may import beyond WASI: configuration, log lines, keys and values.

use std::sync::Arc;

use cri::fake_key_value::FakeKeyValueStore;
use cri::{BucketUse, ContainerConfig, ContainerState, ContainerStatus, Mount};

use crate::fixtures;
use crate::world::World;

fn container(world: &World, name: &str, store: &str, grants: &str) -> ContainerConfig {
    let mut container = world.container(name, &fixtures::uses_capabilities(store), 1);
    container.env = vec![("mode".to_owned(), "from-env".to_owned())];
    container.annotations.insert("knarr.dev/buckets".to_owned(), grants.to_owned());
    container
}

fn exit_code(status: &ContainerStatus) -> i32 {
    match &status.state {
        ContainerState::Exited { exit_code, .. } => *exit_code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_granted_bucket_is_used_in_the_pods_name() {
    let store = Arc::new(FakeKeyValueStore::with(&["prod-cache"]));
    let world = World::with_store(store.clone()).await;
    for run in 1..=2 {
        let name = format!("job{run}");
        let container = container(&world, &name, "cache", "other,cache=prod-cache");
        let (_, id) = world.run(world.pod(&name), container).await;
        assert_eq!(exit_code(&world.exited(&id).await), 0, "{}", world.log(&name));
        assert!(world.log(&name).contains(" stdout F INFO mode: counted"), "{}", world.log(&name));
    }
    assert_eq!(store.value("prod-cache", "runs").as_deref(), Some(&b"10"[..]));
    assert_eq!(store.value("prod-cache", "mode").as_deref(), Some(&b"from-env"[..]));
    let uses = |run: &str| BucketUse {
        namespace: world.namespace.clone(),
        pod: run.to_owned(),
        bucket: "prod-cache".to_owned(),
    };
    assert_eq!(store.uses(), [uses("job1"), uses("job1"), uses("job2"), uses("job2")]);
    world.clean().await;
}

#[tokio::test]
async fn what_was_not_granted_is_refused() {
    let store = Arc::new(FakeKeyValueStore::with(&["cache"]));
    let world = World::with_store(store.clone()).await;
    let check = async |name: &str, opened: &str, grants: &str, log: &str| {
        let (_, id) = world.run(world.pod(name), container(&world, name, opened, grants)).await;
        assert_eq!(exit_code(&world.exited(&id).await), 1, "{}", world.log(name));
        assert!(world.log(name).contains(log), "{}", world.log(name));
    };
    check("none", "cache", "", "stderr F ERROR mode: access denied").await;
    check("another", "cache", "sessions", "stderr F ERROR mode: access denied").await;
    assert!(store.uses().is_empty(), "{:?}", store.uses());
    check("missing", "cache", "cache=nowhere", "stderr F ERROR mode: no such store").await;
    world.clean().await;
}

#[tokio::test]
async fn a_runtime_without_buckets_grants_none() {
    let world = World::new().await;
    let (_, id) = world.run(world.pod("bare"), container(&world, "bare", "cache", "cache")).await;
    assert_eq!(exit_code(&world.exited(&id).await), 1);
    assert!(world.log("bare").contains("access denied"), "{}", world.log("bare"));
    world.clean().await;
}

#[tokio::test]
async fn configuration_comes_from_the_named_mount_first() {
    let store = Arc::new(FakeKeyValueStore::with(&["cache"]));
    let world = World::with_store(store.clone()).await;
    let dir = world.path().join("config");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("mode"), "from-file").unwrap();
    let mut container = container(&world, "configured", "cache", "cache");
    container.mounts = vec![Mount { host_path: dir, container_path: "/etc/config".to_owned(), read_only: true }];
    container.annotations.insert("knarr.dev/config-dir".to_owned(), "/etc/config/".to_owned());
    let (_, id) = world.run(world.pod("configured"), container).await;
    assert_eq!(exit_code(&world.exited(&id).await), 0, "{}", world.log("configured"));
    assert_eq!(store.value("cache", "mode").as_deref(), Some(&b"from-file"[..]));
    world.clean().await;
}

/// Hosts live on when the agent is started again; their guests' calls go to the new one.
#[tokio::test]
async fn an_adopted_host_asks_the_new_agent() {
    let before = Arc::new(FakeKeyValueStore::with(&["cache"]));
    let mut world = World::with_store(before.clone()).await;
    // Keeps the host.
    world.run_guest("stays", &fixtures::plugin()).await;
    let first = world.host_pid();
    let after = Arc::new(FakeKeyValueStore::with(&["cache"]));
    world.reopen_with(after.clone()).await;
    let (_, id) = world.run(world.pod("later"), container(&world, "later", "cache", "cache")).await;
    assert_eq!(exit_code(&world.exited(&id).await), 0, "{}", world.log("later"));
    assert_eq!(world.host_pid(), first);
    assert_eq!((before.uses().len(), after.value("cache", "runs").as_deref()), (0, Some(&b"5"[..])));
    world.clean().await;
}
