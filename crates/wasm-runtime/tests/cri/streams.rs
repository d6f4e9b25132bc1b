//! What `kubectl exec`, `attach` and `port-forward` find in a Wasm container.

use std::time::Duration;

use cri::{ExecOptions, OutputStream, RuntimeService, Streams};
use futures::StreamExt;

use crate::fixtures;
use crate::world::{World, free_port, get};

const PATIENCE: Duration = Duration::from_secs(20);
const OUTPUTS: Streams = Streams { stdin: false, stdout: true, stderr: true };

async fn all(output: Option<OutputStream>) -> String {
    let pieces = async { output.expect("this stream was asked for").collect::<Vec<_>>().await.concat() };
    let bytes = tokio::time::timeout(PATIENCE, pieces).await.expect("the output ends");
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn a_call_is_a_command() {
    let world = World::new().await;
    let (_, id) = world.run_guest("plugin", &fixtures::plugin()).await;
    let check = async |words: &[&str], tty: bool, expect: (&str, &str, i32)| {
        let command = words.iter().map(|word| (*word).to_owned()).collect();
        let streams = Streams { stderr: !tty, ..OUTPUTS };
        let called = world.runtime.exec(&id, ExecOptions { command, streams, tty }).await.unwrap();
        let err = if tty { String::new() } else { all(called.stderr).await };
        let (out, code) = (all(called.stdout).await, called.exit.await.unwrap());
        assert!(
            (out.as_str(), code) == (expect.0, expect.2) && err.contains(expect.1),
            "{words:?}: {out} {err} {code}"
        );
    };
    check(&["add", "2", "40"], false, ("42\n", "", 0)).await;
    check(&["add", "2", "40"], true, ("42\r\n", "", 0)).await;
    check(&["sh"], false, ("", "wasm containers have no shell", 127)).await;
    world.clean().await;
}

#[tokio::test]
async fn clients_see_output_until_the_end() {
    let world = World::new().await;
    let port = free_port();
    let (sandbox, id) = world.run(world.pod("trap"), world.container("trap", &fixtures::http_trap(), port)).await;
    assert_eq!(get(port, "/").await.0, 500);
    let mut attached = world.runtime.attach(&id, OUTPUTS).await.unwrap();
    // The log is followed from its end on; it takes a moment to be there.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(get(port, "/").await.0, 500);
    let mut stderr = attached.stderr.take().unwrap();
    let said = tokio::time::timeout(PATIENCE, stderr.next()).await.unwrap().unwrap();
    assert!(said.starts_with(b"request failed: wasm trap"), "{said:?}");
    let stream = world.runtime.connect_in_pod(&sandbox, port).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap().port(), port);
    world.runtime.stop_container(&id, Duration::from_secs(5)).await.unwrap();
    let exit = tokio::time::timeout(PATIENCE, attached.exit).await.expect("the end is seen");
    assert_eq!(exit.unwrap(), 0);
    assert!(world.runtime.attach(&id, OUTPUTS).await.is_err());
    assert!(world.runtime.connect_in_pod(&sandbox, port).await.is_err());
    world.clean().await;
}
