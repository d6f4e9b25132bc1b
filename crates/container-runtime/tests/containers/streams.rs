//! Commands with streams, attached clients, terminals, connections into a pod.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cri::{ContainerConfig, ContainerId, ExecOptions, ExecStream, RuntimeService, Stdio, Streams, TerminalSize};
use futures::{SinkExt, StreamExt};
use tokio::time::timeout;

use crate::bench::{Bench, LONG, can_run};

const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true };
const OUTPUTS: Streams = Streams { stdin: false, stdout: true, stderr: true };
const TERMINAL: Streams = Streams { stdin: true, stdout: true, stderr: false };

impl Bench {
    async fn exec(&self, id: &ContainerId, script: &str, streams: Streams, tty: bool) -> ExecStream {
        let command = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        self.runtime.exec(id, ExecOptions { command, streams, tty }).await.expect("the command starts")
    }

    /// A pod with a container that stays.
    async fn sleeper(&self) -> (cri::SandboxId, ContainerId) {
        let sandbox = self.sandbox("u1").await;
        let id = self.start(&sandbox, self.script("app", "sleep 1000")).await;
        (sandbox, id)
    }
}

/// Waits until a stream said this.
async fn until(output: &mut cri::OutputStream, text: &str) -> String {
    let mut said = String::new();
    while !said.contains(text) {
        let next = timeout(LONG, output.next()).await.unwrap_or_else(|_| panic!("{said:?} without {text:?}"));
        said.push_str(&String::from_utf8_lossy(&next.unwrap_or_else(|| panic!("{said:?} and no {text:?}"))));
    }
    said
}

async fn rest(output: Option<cri::OutputStream>) -> String {
    let mut all = Vec::new();
    if let Some(mut output) = output {
        while let Some(bytes) = timeout(LONG, output.next()).await.expect("an end of the output") {
            all.extend_from_slice(&bytes);
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

async fn send(streams: &mut ExecStream, text: &str) {
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    streams.stdin.as_mut().expect("an input").send(bytes).await.expect("the input is taken");
}

/// Both outputs and the exit code.
async fn finish(streams: ExecStream) -> (String, String, i32) {
    let (out, err) = tokio::join!(rest(streams.stdout), rest(streams.stderr));
    (out, err, timeout(LONG, streams.exit).await.expect("an end").expect("an exit code"))
}

#[tokio::test]
async fn commands_have_streams_and_an_exit_code() {
    if !can_run("commands_have_streams_and_an_exit_code") {
        return;
    }
    let bench = Bench::new().await;
    let (sandbox, id) = bench.sleeper().await;
    let check = async |script: &str, streams: Streams, expect: (&str, &str, i32)| {
        let (out, err, code) = finish(bench.exec(&id, script, streams, false).await).await;
        assert_eq!((out.as_str(), err.as_str(), code), expect, "{script}");
    };
    check("echo out; echo err >&2; exit 7", OUTPUTS, ("out\n", "err\n", 7)).await;
    check("cat; echo $?; tty", OUTPUTS, ("0\nnot a tty\n", "", 1)).await;
    check("echo out; echo err >&2", Streams { stdout: false, ..OUTPUTS }, ("", "err\n", 0)).await;
    check("yes | head -c 1000000 >&2", Streams { stderr: false, ..OUTPUTS }, ("", "", 0)).await;
    check("kill -9 $$", OUTPUTS, ("", "", 137)).await;

    let mut streams = bench.exec(&id, "cat; echo end >&2", ALL, false).await;
    send(&mut streams, "one\n").await;
    until(streams.stdout.as_mut().unwrap(), "one\n").await;
    send(&mut streams, "two\n").await;
    streams.stdin = None;
    assert_eq!(finish(streams).await, ("two\n".to_owned(), "end\n".to_owned(), 0));

    for (command, code, says) in [("nonesuch", 127, "not found in $PATH"), ("/etc/passwd", 126, "permission denied")] {
        let options = ExecOptions { command: vec![command.to_owned()], streams: OUTPUTS, tty: false };
        let (_, err, got) = finish(bench.runtime.exec(&id, options).await.unwrap()).await;
        assert!(got == code && err.contains(says), "{command}: {got} {err}");
    }
    bench.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    let streams = bench.exec(&id, "true", OUTPUTS, false).await;
    assert!(streams.exit.await.unwrap_err().to_string().contains("not running"));
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn much_data_passes_unchanged() {
    if !can_run("much_data_passes_unchanged") {
        return;
    }
    let bench = Bench::new().await;
    let (sandbox, id) = bench.sleeper().await;
    let mut streams = bench.exec(&id, "cat", ALL, false).await;
    let data: Vec<u8> = (0..5_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (mut stdin, mut stdout) = (streams.stdin.take().unwrap(), streams.stdout.take().unwrap());
    let sent = data.clone();
    let sending = tokio::spawn(async move {
        for chunk in sent.chunks(100_000) {
            stdin.send(Bytes::copy_from_slice(chunk)).await.unwrap();
        }
    });
    let mut received = Vec::new();
    while let Some(bytes) = timeout(LONG, stdout.next()).await.unwrap() {
        received.extend_from_slice(&bytes);
    }
    sending.await.unwrap();
    assert!(received == data, "{} bytes came back", received.len());
    assert_eq!(streams.exit.await.unwrap(), 0);
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn terminals_have_a_name_and_a_size() {
    if !can_run("terminals_have_a_name_and_a_size") {
        return;
    }
    let bench = Bench::new().await;
    let (sandbox, id) = bench.sleeper().await;
    let script =
        "trap 'stty size' WINCH; tty; echo $TERM; echo ready; while read line; do echo got $line; done; exit 3";
    let mut streams = bench.exec(&id, script, TERMINAL, true).await;
    let said = until(streams.stdout.as_mut().unwrap(), "ready").await;
    assert!(said.contains("/dev/pts/0\r\nxterm\r\n"), "{said:?}");
    (streams.resize.as_ref().unwrap())(TerminalSize { width: 132, height: 43 });
    // The shell runs its trap when it has read a line.
    send(&mut streams, "hello\n").await;
    let said = until(streams.stdout.as_mut().unwrap(), "43 132").await;
    assert!(said.contains("hello"), "{said:?}");
    // Control-D.
    send(&mut streams, "\x04").await;
    assert_eq!(finish(streams).await.2, 3);

    // Control-C reaches what runs in the foreground.
    let mut streams = bench.exec(&id, "trap 'exit 9' INT; echo up; while :; do sleep 0.05; done", TERMINAL, true).await;
    until(streams.stdout.as_mut().unwrap(), "up").await;
    send(&mut streams, "\x03").await;
    assert_eq!(finish(streams).await.2, 9);

    let options = ExecOptions { command: vec!["nonesuch".to_owned()], streams: TERMINAL, tty: true };
    let (out, _, code) = finish(bench.runtime.exec(&id, options).await.unwrap()).await;
    assert!(code == 127 && out.contains("not found in $PATH\r\n"), "{code} {out:?}");
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_command_ends_with_its_client() {
    if !can_run("a_command_ends_with_its_client") {
        return;
    }
    let bench = Bench::new().await;
    let (sandbox, id) = bench.sleeper().await;
    let left = async || {
        let command = vec!["sh".to_owned(), "-c".to_owned(), "ps | grep -c '[7]654'".to_owned()];
        let outcome = bench.runtime.exec_sync(&id, &command, LONG).await.unwrap();
        String::from_utf8_lossy(&outcome.stdout).trim().to_owned()
    };
    for tty in [false, true] {
        let streams = if tty { TERMINAL } else { ALL };
        let mut streams = bench.exec(&id, "sleep 7654 & sleep 7654 & echo up; wait", streams, tty).await;
        until(streams.stdout.as_mut().unwrap(), "up").await;
        assert_eq!(left().await, "3", "the shell and its two children");
        drop(streams);
        let begin = Instant::now();
        while left().await != "0" {
            assert!(begin.elapsed() < LONG, "the command still runs");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.traces(), Vec::<String>::new());
}

fn with_stdio(config: ContainerConfig, stdin: bool, stdin_once: bool, tty: bool) -> ContainerConfig {
    ContainerConfig { stdio: Stdio { stdin, stdin_once, tty }, ..config }
}

#[tokio::test]
async fn clients_attach_to_a_container() {
    if !can_run("clients_attach_to_a_container") {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    let script = "echo up; while read line; do echo got $line; echo heard $line >&2; done; echo over; exit 4";
    let id = bench.start(&sandbox, with_stdio(bench.script("app", script), true, false, false)).await;
    bench.logged("app", "up").await;
    let mut first = bench.runtime.attach(&id, ALL).await.unwrap();
    let mut second = bench.runtime.attach(&id, OUTPUTS).await.unwrap();
    assert!(second.stdin.is_none() && first.resize.is_none());
    send(&mut first, "one\n").await;
    for streams in [&mut first, &mut second] {
        until(streams.stdout.as_mut().unwrap(), "got one\n").await;
        until(streams.stderr.as_mut().unwrap(), "heard one\n").await;
    }
    // One that goes leaves the container and its input alone.
    drop(first);
    let mut third = bench.runtime.attach(&id, ALL).await.unwrap();
    send(&mut third, "two\n").await;
    until(second.stdout.as_mut().unwrap(), "got two\n").await;
    drop(third);
    assert!(bench.log("app").contains("got two"));
    bench.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(finish(second).await.2, 0);
    assert!(bench.runtime.attach(&id, ALL).await.unwrap_err().to_string().contains("not running"));

    let id = bench.start(&sandbox, with_stdio(bench.script("once", script), true, true, false)).await;
    let mut only = bench.runtime.attach(&id, ALL).await.unwrap();
    send(&mut only, "three\n").await;
    only.stdin = None;
    let (out, _, _) = finish(only).await;
    assert!(out.ends_with("got three\nover\n"), "{out:?}");
    assert_eq!(bench.ended(&id).await.0, 4);

    let id = bench.start(&sandbox, with_stdio(bench.script("deaf", "cat; sleep 1000"), false, false, false)).await;
    assert!(bench.runtime.attach(&id, ALL).await.unwrap().stdin.is_none());
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_container_can_have_a_terminal() {
    if !can_run("a_container_can_have_a_terminal") {
        return;
    }
    let mut bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    let script = "tty; echo up; while read line; do echo got $line; stty size; done; exit 5";
    let id = bench.start(&sandbox, with_stdio(bench.script("app", script), true, false, true)).await;
    bench.logged("app", "up").await;
    assert!(bench.log("app").starts_with("/dev/pts/0"), "{}", bench.log("app"));
    // The terminal is the shim's: an agent that comes later finds it.
    bench.reopen().await;
    let mut streams = bench.runtime.attach(&id, ALL).await.unwrap();
    assert_eq!(rest(streams.stderr.take()).await, "");
    (streams.resize.as_ref().unwrap())(TerminalSize { width: 90, height: 30 });
    send(&mut streams, "hello\n").await;
    until(streams.stdout.as_mut().unwrap(), "30 90").await;
    send(&mut streams, "\x04").await;
    assert_eq!(finish(streams).await.2, 0);
    assert_eq!(bench.ended(&id).await.0, 5);
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn ports_are_reached_from_inside_the_pod() {
    if !can_run("ports_are_reached_from_inside_the_pod") {
        return;
    }
    let bench = Bench::new().await;
    let (sandbox, _) = bench.sleeper().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stream = bench.runtime.connect_in_pod(&sandbox, port).await.unwrap();
    let peer = listener.accept().await.unwrap().1;
    assert_eq!(stream.local_addr().unwrap(), peer);
    drop(listener);
    let error = bench.runtime.connect_in_pod(&sandbox, port).await.unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("refused"), "{error}: {cause}");
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.traces(), Vec::<String>::new());
}
