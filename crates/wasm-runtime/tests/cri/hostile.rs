//! Guests that mean harm. Each harms only itself: its neighbour in the same host process answers all the while, and
//! what it took is given back.

use cri::{ContainerState, ExitReason, Mount, RuntimeService};

use crate::fixtures;
use crate::world::{World, free_port, get};

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
        container.resources.memory_limit_bytes = Some(64 << 20);
        let (_, id) = self.world.run(self.world.pod(name), container).await;
        let status = self.world.exited(&id).await;
        let ContainerState::Exited { exit_code, reason, message, .. } = status.state else { unreachable!() };
        assert_eq!(get(self.good, "/").await.0, 200, "the neighbour of {name}");
        (exit_code, reason, message)
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
async fn open_files_are_limited_and_given_back() {
    let all = Neighbourhood::new().await;
    let dir = all.world.path().join("volume");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("greeting.txt"), "x").unwrap();
    for round in 0..3 {
        let mount = Mount { host_path: dir.clone(), container_path: "/data".to_owned(), read_only: true };
        let name = format!("files-{round}");
        let (code, reason, message) = all.end_of(&name, &fixtures::opens_without_end(), vec![mount]).await;
        // It sees an error of the call, or is ended by it; it never gets as many as the process may have.
        assert!(matches!(code, 0 | 134), "{code} {reason:?} {message}");
    }
    all.world.clean().await;
}

#[tokio::test]
async fn handles_are_limited() {
    let all = Neighbourhood::new().await;
    let bad = free_port();
    all.world.run(all.world.pod("bad"), all.world.container("bad", &fixtures::http_takes_handles(), bad)).await;
    for _ in 0..3 {
        assert_eq!(get(bad, "/").await.0, 500);
        assert_eq!(get(all.good, "/").await.0, 200);
    }
    let log = all.world.log("bad");
    assert!(log.contains("table has no free keys"), "{log}");
    all.world.clean().await;
}

#[tokio::test]
async fn a_bomb_for_the_compiler_is_refused_or_done() {
    let all = Neighbourhood::new().await;
    // One function that needs far more memory to be compiled than it has bytes.
    let image = all.world.image(&fixtures::compile_bomb());
    let prepared = tokio::spawn({
        let runtime = all.world.runtime.clone();
        async move { runtime.prepare_image(&image).await }
    });
    while !prepared.is_finished() {
        assert_eq!(get(all.good, "/").await.0, 200);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    if let Err(error) = prepared.await.unwrap() {
        let text = format!("{error:?}");
        assert!(text.contains("compiler") || text.contains("limit"), "{text}");
    }
    all.world.clean().await;
}
