//! The socket to the agent: accept, check who it is, lines in, lines out. No container in here.

use std::io;
use std::path::Path;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::worker::Message;
use crate::files;
use crate::passing::LineReader;
use crate::protocol::{RequestLine, ShimLine};

/// Lines that wait for a slow agent; when they are more, it is cut off and lists again.
const OUTGOING_MAX: usize = 1024;

/// Lines to one agent.
pub type AgentSender = mpsc::Sender<ShimLine>;

/// Binds the socket. The directory keeps others out; a path through `/proc/self/fd` keeps the
/// address short, whatever the directory's name.
pub fn bind(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let socket = dir.join(name);
    let _ = std::fs::remove_file(&socket);
    files::with_short_path(dir, name, |short| UnixListener::bind(short))
}

/// Accepts agents for ever.
pub async fn accept(listener: UnixListener, worker: mpsc::Sender<Message>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely; the next attempt may have more.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let same_user = stream.peer_cred().is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw());
        if same_user {
            serve(stream, worker.clone());
        }
    }
}

fn serve(stream: UnixStream, worker: mpsc::Sender<Message>) {
    let (reader, writer) = stream.into_split();
    let (outgoing, lines) = mpsc::channel(OUTGOING_MAX);
    tokio::spawn(async move {
        // Once the agent is gone nobody reads: whoever has a sender sees that it is closed.
        tokio::select! {
            () = read(reader, outgoing, worker) => {}
            () = write(writer, lines) => {}
        }
    });
}

async fn write(mut writer: OwnedWriteHalf, mut lines: mpsc::Receiver<ShimLine>) {
    while let Some(line) = lines.recv().await {
        let mut text = serde_json::to_vec(&line).expect("protocol types are plain JSON");
        text.push(b'\n');
        if writer.write_all(&text).await.is_err() {
            return;
        }
    }
}

async fn read(socket: OwnedReadHalf, outgoing: AgentSender, worker: mpsc::Sender<Message>) {
    let mut lines = LineReader::default();
    while let Ok(Some((text, files))) = lines.next(socket.as_ref()).await {
        // A shim of an older version than its agent does not know every request.
        let Ok(line) = serde_json::from_slice::<RequestLine>(&text) else { return };
        if worker.send(Message::Request(line, files, outgoing.clone())).await.is_err() {
            return;
        }
    }
}
