//! Middleware: containers of a pod that requests pass before they come to the application.

use cri::{CallCounts, ContainerConfig, RuntimeService};

use crate::guests::guest;
use crate::world::{World, ask, free_port, get};

async fn counts(world: &World, name: &str) -> CallCounts {
    let stats = world.runtime.list_stats().await.unwrap();
    stats.iter().find(|one| one.name == name).unwrap().calls.unwrap()
}

fn middleware(world: &World, name: &str, bytes: &[u8], token: Option<&str>) -> ContainerConfig {
    let mut container = world.container(name, bytes, 1);
    container.env = vec![("NAME".to_owned(), name.to_owned())];
    container.env.extend(token.map(|token| ("TOKEN".to_owned(), token.to_owned())));
    container
}

#[tokio::test]
async fn requests_pass_the_containers_that_the_pod_lists() {
    let (Some(hello), Some(bytes)) = (guest("hello-http"), guest("middleware")) else { return };
    let world = World::new().await;
    let port = free_port();
    let mut pod = world.pod("chained");
    pod.annotations.insert("middleware.knarr.dev/web".to_owned(), "auth, log".to_owned());
    let mut web = world.container("web", &hello, port);
    web.env = vec![("HOSTNAME".to_owned(), "the application".to_owned())];
    world.run(pod.clone(), web).await;
    // Nothing passes while one is missing.
    let (status, answer) = get(port, "/").await;
    assert!(status == 503 && answer.contains("the middleware before the component does not run"), "{answer}");
    world.run(pod.clone(), middleware(&world, "auth", &bytes, Some("secret"))).await;
    let (_, log) = world.run(pod, middleware(&world, "log", &bytes, None)).await;

    let (status, answer) = get(port, "/").await;
    assert_eq!(status, 401, "{answer}");
    assert_eq!([counts(&world, "web").await.begun, counts(&world, "log").await.begun], [0, 0], "it came no further");
    let token = "authorization: Bearer secret";
    let (status, answer) = ask(port, "GET", "/", token, "").await;
    assert!(status == 200 && answer.contains("Hello from the application"), "{answer}");
    let passed: Vec<&str> = answer.lines().filter_map(|line| line.trim().strip_prefix("x-passed: ")).collect();
    assert_eq!(passed, ["log", "auth"], "{answer}");
    let (_, answer) = ask(port, "GET", "/headers", token, "").await;
    assert!(answer.contains("authorization: Bearer secret"), "{answer}");
    let (status, answer) = ask(port, "GET", "/trap", token, "").await;
    assert!(status == 500 && answer.contains("trapped"), "{answer}");
    for (name, begun) in [("auth", 4), ("log", 3), ("web", 3)] {
        let counted = counts(&world, name).await;
        assert_eq!((counted.begun, counted.in_process), (begun, begun), "{name}");
    }
    assert!(world.log("auth").contains("auth refuses /") && world.log("log").contains("log passes /headers"));

    // One that ended lets nobody by.
    world.runtime.stop_container(&log, std::time::Duration::from_secs(5)).await.unwrap();
    let (status, answer) = ask(port, "GET", "/", token, "").await;
    assert!((500..600).contains(&status) && !answer.contains("Hello"), "{answer}");
    world.clean().await;
}

#[tokio::test]
async fn what_is_no_middleware_does_not_start_as_one() {
    let (Some(hello), Some(bytes)) = (guest("hello-http"), guest("middleware")) else { return };
    let world = World::new().await;
    let start = async |pod: &str, named: &str, container: ContainerConfig, why: &str| {
        let mut pod = world.pod(pod);
        pod.annotations.insert("middleware.knarr.dev/web".to_owned(), named.to_owned());
        let sandbox = world.runtime.run_pod_sandbox(pod).await.unwrap();
        let id = world.runtime.create_container(&sandbox, container).await.unwrap();
        let refused = world.runtime.start_container(&id).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    };
    start("a", "auth", middleware(&world, "other", &bytes, None), "no annotation middleware.knarr.dev/").await;
    start("b", "auth", world.container("auth", &hello, 1), "does not export wasi:http/handler").await;
    world.clean().await;
}
