//! Guests that mean harm. Each harms only itself: its neighbour in the same host process answers all the while, and
//! what it took is given back.

use std::time::Duration;

use cri::{ContainerState, ExitReason, Mount, RuntimeError, RuntimeService};

use crate::world::{World, free_port, get};
use crate::{bombs, fixtures};

const MIB: u64 = 1 << 20;
/// What a guest here may take.
const GUEST_BYTES_MAX: u64 = 64 * MIB;
/// What its host may have taken at its worst, for all guests of a test and itself.
const HOST_BYTES_MAX: u64 = 300 * MIB;
/// An Event holds no more.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Exit code, reason, message.
type End = (i32, ExitReason, String);

struct Neighbourhood {
    world: World,
    good: u16,
}

impl Neighbourhood {
    async fn new() -> Self {
        let world = World::new().await;
        let good = free_port();
        world.run(world.pod("good"), world.container("good", &fixtures::http_ok(), good)).await;
        Self { world, good }
    }

    /// Runs a command to its end, and asks the neighbour.
    async fn end_of(&self, name: &str, bytes: &[u8], mounts: Vec<Mount>) -> End {
        let mut container = self.world.container(name, bytes, 1);
        container.mounts = mounts;
        container.resources.memory_limit_bytes = Some(GUEST_BYTES_MAX);
        let (_, id) = self.world.run(self.world.pod(name), container).await;
        let status = self.world.exited(&id).await;
        let ContainerState::Exited { exit_code, reason, message, .. } = status.state else { unreachable!() };
        assert_eq!(get(self.good, "/").await.0, 200, "the neighbour of {name}");
        (exit_code, reason, message)
    }

    /// Makes an image ready while the neighbour is asked; the error, if there was one.
    async fn prepare(&self, name: &str, bytes: &[u8]) -> Result<(), RuntimeError> {
        let image = self.world.image(bytes);
        let runtime = self.world.runtime.clone();
        let prepared = tokio::spawn(async move { runtime.prepare_image(&image, "default").await });
        while !prepared.is_finished() {
            assert_eq!(get(self.good, "/").await.0, 200, "the neighbour of {name}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        prepared.await.unwrap().map(|_| ())
    }

    /// What the host had at its worst.
    fn host_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.world.host_pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }
}

#[tokio::test]
async fn floods_end_the_guest_that_makes_them() {
    let all = Neighbourhood::new().await;
    let check = async |name: &str, body: &str, code: i32, why: ExitReason, text: &str| {
        let (exit_code, reason, message) = all.end_of(name, &fixtures::start(body), Vec::new()).await;
        assert_eq!((exit_code, reason), (code, why), "{name}: {message}");
        assert!(message.contains(text), "{name}: {message}");
    };
    check("recursion", "(call $start)", 134, ExitReason::Error, "stack").await;
    check("division", "(drop (i32.div_u (i32.const 1) (i32.const 0)))", 134, ExitReason::Error, "divide by zero").await;
    // Refused by the pool's size of a table or by the memory limit, whichever is less.
    let table = "(loop $more (br_if $more (i32.ge_s (table.grow (ref.null func) (i32.const 1000)) (i32.const 0))))";
    let (code, _, message) = all.end_of("table", &fixtures::start(&format!("{table} unreachable")), Vec::new()).await;
    assert!(matches!(code, 134 | 137), "{code} {message}");
    check("outside", "(drop (i32.load (i32.const -8)))", 134, ExitReason::Error, "out of bounds").await;
    all.world.clean().await;
}

#[tokio::test]
async fn what_begins_too_large_does_not_begin() {
    let all = Neighbourhood::new().await;
    // Four gigabytes of memory are what a module may begin with.
    let end = all.end_of("memory", &bombs::that_begins_large("(memory 65536)"), Vec::new()).await;
    assert_eq!((end.0, end.1), (137, ExitReason::OomKilled), "{}", end.2);
    // More of a thing than a slot of the pool has is said before anything runs.
    let check = async |name: &str, bytes: &[u8], expect: &str| {
        let container = all.world.container(name, bytes, 1);
        let sandbox = all.world.runtime.run_pod_sandbox(all.world.pod(name)).await.unwrap();
        let error = match all.world.runtime.create_container(&sandbox, container).await {
            Ok(id) => all.world.runtime.start_container(&id).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains(expect), "{name}: {error}");
        assert!(error.to_string().len() < MESSAGE_BYTES_MAX, "{name}: {error}");
        assert_eq!(get(all.good, "/").await.0, 200, "the neighbour of {name}");
    };
    check("wide", &bombs::that_begins_large("(table 10000000 funcref)"), "table").await;
    check("memories", &bombs::that_begins_large(&"(memory 1)".repeat(20)), "memor").await;
    check("instances", &bombs::of_instances(7), "instance").await;
    all.world.clean().await;
}

#[tokio::test]
async fn objects_count_as_memory() {
    let all = Neighbourhood::new().await;
    for (name, bytes) in [("objects", bombs::of_objects()), ("object", bombs::of_one_object())] {
        let (code, reason, message) = all.end_of(name, &bytes, Vec::new()).await;
        assert_eq!((code, reason), (137, ExitReason::OomKilled), "{name}: {message}");
    }
    assert!(all.host_bytes() < HOST_BYTES_MAX, "{} MiB", all.host_bytes() / MIB);
    all.world.clean().await;
}

#[tokio::test]
async fn open_files_are_limited_and_given_back() {
    let all = Neighbourhood::new().await;
    let dir = all.world.path().join("volume");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("greeting.txt"), "x").unwrap();
    for round in 0..3 {
        let mount = Mount { host_path: dir.clone(), container_path: "/data".to_owned(), read_only: true };
        let name = format!("files-{round}");
        let (code, reason, message) = all.end_of(&name, &bombs::opens_without_end(), vec![mount]).await;
        // It sees an error of the call, or is ended by it; it never gets as many as the process may have.
        assert!(matches!(code, 0 | 134), "{code} {reason:?} {message}");
    }
    all.world.clean().await;
}

#[tokio::test]
async fn subscriptions_are_limited() {
    let all = Neighbourhood::new().await;
    let (code, reason, message) = all.end_of("poll", &bombs::of_subscriptions(), Vec::new()).await;
    assert!(matches!(code, 0 | 134), "{code} {reason:?} {message}");
    assert!(all.host_bytes() < HOST_BYTES_MAX, "{} MiB", all.host_bytes() / MIB);
    all.world.clean().await;
}

#[tokio::test]
async fn handles_and_fields_are_limited() {
    let all = Neighbourhood::new().await;
    let check = async |name: &str, bytes: &[u8], status: u16| {
        let bad = free_port();
        all.world.run(all.world.pod(name), all.world.container(name, bytes, bad)).await;
        for _ in 0..3 {
            assert_eq!(get(bad, "/").await.0, status, "{name}");
            assert_eq!(get(all.good, "/").await.0, 200, "the neighbour of {name}");
        }
    };
    check("handles", &bombs::http_takes_handles(), 500).await;
    assert!(all.world.log("handles").contains("table has no free keys"), "{}", all.world.log("handles"));
    // It is told that no more fits, and goes on.
    let before = all.host_bytes();
    check("fields", &bombs::http_fills_fields(), 200).await;
    let grown = all.host_bytes() - before;
    assert!(grown < 32 * MIB, "{} MiB", grown / MIB);
    all.world.clean().await;
}

#[tokio::test]
async fn a_guest_that_spins_has_the_cpu_of_its_limit() {
    let all = Neighbourhood::new().await;
    let mut container = all.world.container("spins", &fixtures::start("(loop $more (br $more))"), 1);
    container.resources.cpu_limit_millis = Some(100);
    let (sandbox, id) = all.world.run(all.world.pod("spins"), container.clone()).await;
    let used = async || {
        let stats = all.world.runtime.list_stats().await.unwrap();
        Duration::from_nanos(stats.into_iter().find(|one| one.id == id).unwrap().cpu_usage_nanos)
    };
    let wait = Duration::from_secs(2);
    tokio::time::sleep(wait).await;
    // A tenth, and what it may take at once. Time passes here at least as fast as there.
    let after_limit = used().await;
    assert!(after_limit > Duration::ZERO && after_limit < wait / 2, "{after_limit:?}");
    assert_eq!(get(all.good, "/").await.0, 200, "the neighbour");
    // Another limit counts from now on.
    let mut resources = container.resources;
    resources.cpu_limit_millis = None;
    let pod = resources.clone();
    let update = cri::ResourceUpdate { sandbox, pod, container: Some((id.clone(), resources)) };
    all.world.runtime.update_resources(update).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), async {
        while used().await < after_limit + wait {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("without a limit it takes what there is");
    all.world.clean().await;
}

#[tokio::test]
async fn bombs_for_the_compiler_are_refused_or_done() {
    let all = Neighbourhood::new().await;
    let check = async |name: &str, bytes: &[u8]| {
        let began = std::time::Instant::now();
        let prepared = all.prepare(name, bytes).await;
        println!("{name}: {prepared:?} after {:?}", began.elapsed());
        if let Err(error) = prepared {
            let text = error.to_string();
            assert!(text.len() < MESSAGE_BYTES_MAX, "{name}: {} bytes of message", text.len());
        }
        assert!(
            all.world.runtime.prepare_image(&all.world.image(&fixtures::http_ok()), "default").await.is_ok(),
            "after {name}"
        );
    };
    // One function that needs far more memory to be compiled than it has bytes.
    check("variables", &bombs::of_variables()).await;
    check("blocks", &bombs::of_blocks(20_000)).await;
    check("components", &bombs::of_components(1_000)).await;
    check("instances", &bombs::of_instances(11)).await;
    all.world.clean().await;
}

#[tokio::test]
async fn what_is_more_than_anybody_needs_is_refused_in_few_words() {
    let all = Neighbourhood::new().await;
    let check = async |name: &str, bytes: &[u8], expect: &str| {
        let error = all.prepare(name, bytes).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expect), "{name}: {text}");
        assert!(text.len() < MESSAGE_BYTES_MAX, "{name}: {} bytes of message", text.len());
        assert_eq!(error.reason(), "ImageNotSupported", "{name}");
    };
    check("types", &bombs::of_types(), "types").await;
    check("tuples", &bombs::of_tuples(), "type").await;
    check("imports", &bombs::of_imports(50_000), "49995 more").await;
    check("a name", &bombs::of_a_name(90_000), "xxxx").await;
    all.world.clean().await;
}
