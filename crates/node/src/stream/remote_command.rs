//! Carries the streams of a command to its client and back, whatever the protocol between.
//!
//! Owns: order (output before the last word), backpressure, and what ends what: a client that goes away ends the
//! command, a command that ends closes the connection.

use std::time::Duration;

use bytes::Bytes;
use cri::{ExecStream, OutputStream, StdinSink};
use futures::{SinkExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::activity::{Activity, IDLE_MAX};
use super::channel::{FromClient, ToClient};
use super::outcome::Outcome;

/// After the command has ended, a child of it may keep its output open: what comes later than this is lost.
const LINGER: Duration = Duration::from_millis(500);

/// Runs until the command or its client ends. Says last how it ended, if anybody is there to hear it.
pub async fn run(
    session: Result<ExecStream, String>,
    from_client: impl Stream<Item = FromClient>,
    to_client: mpsc::Sender<ToClient>,
) {
    let activity = Activity::new();
    let session = match session {
        Ok(session) => session,
        Err(why) => {
            let _ = to_client.send(ToClient::Ended(Outcome::Failed(why))).await;
            return;
        }
    };
    let ExecStream { stdin, stdout, stderr, resize, exit } = session;
    let input = feed(from_client, stdin, resize, activity.clone());
    let ended = tokio_util::sync::CancellationToken::new();
    let command = async {
        let exited = async {
            let exited = exit.await;
            ended.cancel();
            exited
        };
        let stdout = forward(stdout, ToClient::Stdout, &to_client, (&ended, &activity));
        let stderr = forward(stderr, ToClient::Stderr, &to_client, (&ended, &activity));
        tokio::join!(exited, stdout, stderr).0
    };
    let outcome = tokio::select! {
        outcome = command => outcome,
        () = input => return tracing::debug!("a command's client went away"),
        () = to_client.closed() => return tracing::debug!("a command's client does not listen any more"),
        () = activity.idle_for(IDLE_MAX) => return tracing::debug!("a command's streams were idle for too long"),
    };
    let outcome = match outcome {
        Ok(code) => Outcome::Exited(code),
        Err(error) => Outcome::Failed(chain(&error)),
    };
    let _ = to_client.send(ToClient::Ended(outcome)).await;
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Ends when the client is gone.
async fn feed(
    from_client: impl Stream<Item = FromClient>,
    mut stdin: Option<StdinSink>,
    resize: Option<cri::Resize>,
    activity: Activity,
) {
    tokio::pin!(from_client);
    while let Some(said) = from_client.next().await {
        activity.touch();
        match said {
            FromClient::Stdin(bytes) if bytes.is_empty() => {}
            FromClient::Stdin(bytes) => {
                // A command may close its input and go on.
                if let Some(sink) = &mut stdin
                    && sink.send(bytes).await.is_err()
                {
                    stdin = None;
                }
            }
            FromClient::StdinClosed => stdin = None,
            FromClient::Resize(size) => {
                if let Some(resize) = &resize {
                    resize(size);
                }
            }
        }
    }
}

/// Until the output ends, or is silent after the command has ended, or nobody listens.
async fn forward(
    output: Option<OutputStream>,
    wrap: fn(Bytes) -> ToClient,
    to_client: &mpsc::Sender<ToClient>,
    (ended, activity): (&tokio_util::sync::CancellationToken, &Activity),
) {
    let Some(mut output) = output else { return };
    loop {
        let silence = async {
            ended.cancelled().await;
            tokio::time::sleep(LINGER).await;
        };
        let next = tokio::select! {
            biased;
            next = output.next() => next,
            () = silence => None,
        };
        let Some(bytes) = next else { return };
        activity.touch();
        if to_client.send(wrap(bytes)).await.is_err() {
            return;
        }
    }
}

/// A queue to the client, for [`run`].
pub fn queue() -> (mpsc::Sender<ToClient>, mpsc::Receiver<ToClient>) {
    /// Pieces of output that wait for a slow client.
    const PIECES_MAX: usize = 8;
    mpsc::channel(PIECES_MAX)
}

/// Runs the command and tells the client; `tell` ends when the client cannot be told any more.
pub async fn with_client(
    session: Result<ExecStream, String>,
    from_client: impl Stream<Item = FromClient>,
    tell: impl AsyncFnOnce(mpsc::Receiver<ToClient>),
) {
    let (to_client, queue) = queue();
    let telling = tell(queue);
    let running = run(session, from_client, to_client);
    // The queue ends with the command, and telling ends with the queue.
    let ((), told) = tokio::join!(running, timeout(IDLE_MAX, telling));
    drop(told);
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::TerminalSize;
    use std::sync::{Arc, Mutex};

    fn session(stdout: &[&'static str], exit: Result<i32, cri::RuntimeError>) -> ExecStream {
        let said: Vec<Bytes> = stdout.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
        ExecStream {
            stdin: None,
            stdout: Some(futures::stream::iter(said).boxed()),
            stderr: None,
            resize: None,
            exit: Box::pin(std::future::ready(exit)),
        }
    }

    async fn all(mut queue: mpsc::Receiver<ToClient>) -> Vec<ToClient> {
        let mut all = Vec::new();
        while let Some(said) = queue.recv().await {
            all.push(said);
        }
        all
    }

    #[tokio::test]
    async fn the_outcome_comes_last() {
        let check = async |session: Result<ExecStream, String>, expect: &[ToClient]| {
            let (to_client, queue) = queue();
            let ((), heard) = tokio::join!(run(session, futures::stream::pending(), to_client), all(queue));
            assert_eq!(heard, expect);
        };
        let (one, two) = (ToClient::Stdout("one".into()), ToClient::Stdout("two".into()));
        let ended = ToClient::Ended;
        check(Ok(session(&["one", "two"], Ok(3))), &[one, two, ended(Outcome::Exited(3))]).await;
        check(Err("no such container".into()), &[ended(Outcome::Failed("no such container".into()))]).await;
        let lost = cri::RuntimeError::Helper { helper: "shim", attempt: "answer".into(), why: "it died".into() };
        check(Ok(session(&[], Err(lost))), &[ended(Outcome::Failed("shim did not answer: it died".into()))]).await;
    }

    #[tokio::test]
    async fn output_that_never_ends_does_not_keep_the_client() {
        let mut session = session(&[], Ok(0));
        session.stdout = Some(futures::stream::pending().boxed());
        let (to_client, queue) = queue();
        let ((), heard) = tokio::join!(run(Ok(session), futures::stream::pending(), to_client), all(queue));
        assert_eq!(heard, [ToClient::Ended(Outcome::Exited(0))]);
    }

    #[tokio::test]
    async fn input_and_sizes_arrive_and_a_gone_client_ends_it() {
        let noted = Arc::new(Mutex::new(Vec::<String>::new()));
        let (note, sizes) = (Arc::clone(&noted), Arc::clone(&noted));
        let mut session = session(&[], Ok(0));
        session.exit = Box::pin(std::future::pending());
        session.stdin = Some(Box::pin(futures::sink::unfold(note, |note, bytes: Bytes| async move {
            note.lock().unwrap().push(String::from_utf8_lossy(&bytes).into_owned());
            Ok(note)
        })));
        session.resize = Some(Box::new(move |size: TerminalSize| {
            sizes.lock().unwrap().push(format!("{}x{}", size.width, size.height));
        }));
        let said = [
            FromClient::Stdin("a".into()),
            FromClient::Resize(TerminalSize { width: 80, height: 24 }),
            FromClient::StdinClosed,
            FromClient::Stdin("late".into()),
        ];
        let (to_client, queue) = queue();
        let ((), heard) = tokio::join!(run(Ok(session), futures::stream::iter(said), to_client), all(queue));
        assert_eq!(heard, []);
        assert_eq!(*noted.lock().unwrap(), ["a", "80x24"]);
    }
}
