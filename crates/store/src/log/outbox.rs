//! The way to the writer of the log: to its thread, or, inline, to a task that takes what waits after a delay.
//! Inline is for simulations; the only place of the log that knows an executor.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;

use super::writer::{Command, Flow, SYNC_DELAY_MAX, Writer, refuse};
use crate::workers::Workers;

/// Writes waiting for the log; raft has fewer in flight.
const WRITES_MAX: usize = 4096;

#[derive(Clone)]
pub(super) struct Outbox {
    commands: SyncSender<Command>,
    writer: Hand,
}

#[derive(Clone)]
enum Hand {
    Thread(Arc<Mutex<Option<JoinHandle<()>>>>),
    Inline(Arc<Desk>),
}

/// The inline writer and what it has to do.
struct Desk {
    seat: Mutex<Seat>,
    arrived: Arc<Notify>,
}

impl Drop for Desk {
    /// The one who attends finds out that there is nothing left to do.
    fn drop(&mut self) {
        self.arrived.notify_one();
    }
}

struct Seat {
    writer: Writer,
    inbox: Receiver<Command>,
    failed: bool,
}

impl Outbox {
    pub fn start(writer: Writer, workers: &Workers) -> io::Result<Self> {
        let (commands, inbox) = sync_channel(WRITES_MAX);
        let writer = match workers {
            Workers::Threads => {
                let thread = std::thread::Builder::new().name("store-log".to_owned());
                let thread = thread.spawn(move || writer.run(&inbox))?;
                Hand::Thread(Arc::new(Mutex::new(Some(thread))))
            }
            Workers::Inline(delay) => {
                let seat = Mutex::new(Seat { writer, inbox, failed: false });
                let arrived = Arc::new(Notify::new());
                let desk = Arc::new(Desk { seat, arrived: arrived.clone() });
                tokio::spawn(attend(Arc::downgrade(&desk), arrived, delay.clone()));
                Hand::Inline(desk)
            }
        };
        Ok(Self { commands, writer })
    }

    pub fn send(&self, command: Command) {
        let refused = match &self.writer {
            Hand::Thread(_) => self.commands.send(command).err().map(|refused| refused.0),
            Hand::Inline(desk) => {
                let refused = match self.commands.try_send(command) {
                    Ok(()) => None,
                    Err(TrySendError::Full(command)) => {
                        desk.turn();
                        self.commands.try_send(command).err().map(|refused| match refused {
                            TrySendError::Full(command) | TrySendError::Disconnected(command) => command,
                        })
                    }
                    Err(TrySendError::Disconnected(command)) => Some(command),
                };
                desk.arrived.notify_one();
                refused
            }
        };
        if let Some(Command::Write { done, .. }) = refused {
            done(Err(io::Error::other("the log is closed")));
        }
    }

    /// Inline, does everything that waits before it returns. The thread does so by itself.
    pub fn finish_now(&self) {
        if let Hand::Inline(desk) = &self.writer {
            desk.turn();
        }
    }

    /// After [`Command::Stop`]: returns when the writer has let go of the file.
    pub fn join(&self) {
        match &self.writer {
            Hand::Thread(thread) => {
                let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
                if thread.is_some_and(|thread| thread.join().is_err()) {
                    tracing::error!("the log thread panicked");
                }
            }
            Hand::Inline(desk) => desk.turn(),
        }
    }
}

/// Ends when nobody is left to send anything.
async fn attend(desk: Weak<Desk>, arrived: Arc<Notify>, delay: Arc<dyn Fn() -> Duration + Send + Sync>) {
    loop {
        let Some(dirty) = desk.upgrade().map(|desk| desk.seat().writer.is_dirty()) else { return };
        // Relaxed writes wait for company as they do on the thread.
        let patience = if dirty { SYNC_DELAY_MAX } else { Duration::MAX };
        let arrived = tokio::time::timeout(patience, arrived.notified()).await.is_ok();
        tokio::time::sleep(delay()).await;
        let Some(desk) = desk.upgrade() else { return };
        if arrived { desk.turn() } else { desk.seat().sync() }
    }
}

impl Desk {
    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().expect("the writer does not panic, it reports errors")
    }

    fn turn(&self) {
        self.seat().turn();
    }
}

impl Seat {
    fn turn(&mut self) {
        while let Ok(command) = self.inbox.try_recv() {
            let done = if self.failed { Ok(refuse(command)) } else { self.writer.take(command, &self.inbox) };
            match done {
                Ok(Flow::Continue) => {}
                Ok(Flow::Stop) => return,
                Err(error) => self.fail(&error),
            }
        }
    }

    fn sync(&mut self) {
        if !self.failed
            && let Err(error) = self.writer.sync()
        {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.failed = true;
        self.writer.fail(error);
    }
}
