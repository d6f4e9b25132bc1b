//! Standard streams of a running command or container, as values that cross the seam.
//!
//! Owns: their types. May not know: which protocol carries them to a client, nor what is behind them.

use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures::Sink;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::error::RuntimeError;

/// What a container's first process has as standard streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stdio {
    /// Its standard input can be written to by `attach`; without it that is empty.
    pub stdin: bool,
    /// The first client of `attach` that closes standard input closes it for good.
    pub stdin_once: bool,
    /// A terminal in place of three streams.
    pub tty: bool,
}

/// One command to run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOptions {
    pub command: Vec<String>,
    pub streams: Streams,
    /// The command gets a terminal; standard error is then part of standard output.
    pub tty: bool,
}

/// The streams somebody wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// Takes standard input. Dropping it is the end of the input.
pub type StdinSink = Pin<Box<dyn Sink<Bytes, Error = io::Error> + Send>>;
/// Output as it comes; ends when nobody can write any more.
pub type OutputStream = BoxStream<'static, Bytes>;
/// Changes the size of the terminal; does nothing to what has none.
pub type Resize = Box<dyn Fn(TerminalSize) + Send + Sync>;

/// A running command, or a container somebody looks at. Whoever drops `exit` before it is ready ends the
/// command of an `exec`, and only lets go of the container of an `attach`.
pub struct ExecStream {
    pub stdin: Option<StdinSink>,
    pub stdout: Option<OutputStream>,
    pub stderr: Option<OutputStream>,
    pub resize: Option<Resize>,
    /// The exit code: of the command, or 0 when an attached container has ended.
    pub exit: BoxFuture<'static, Result<i32, RuntimeError>>,
}

impl std::fmt::Debug for ExecStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecStream").finish_non_exhaustive()
    }
}

impl ExecStream {
    /// A command that has ended already.
    pub fn ended(outcome: crate::ExecOutcome, wanted: Streams) -> Self {
        let whole = |wanted: bool, bytes: Vec<u8>| -> Option<OutputStream> {
            let bytes = (!bytes.is_empty()).then(|| Bytes::from(bytes));
            wanted.then(|| Box::pin(futures::stream::iter(bytes)) as OutputStream)
        };
        let exit_code = outcome.exit_code;
        Self {
            stdin: None,
            stdout: whole(wanted.stdout, outcome.stdout),
            stderr: whole(wanted.stderr, outcome.stderr),
            resize: None,
            exit: Box::pin(std::future::ready(Ok(exit_code))),
        }
    }
}
