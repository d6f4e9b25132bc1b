//! What writes the log, on a thread or inline: one write and at most one fsync for everything that waits (group commit).
//!
//! What need not be synced at once is synced with the next batch that must, or after [`SYNC_DELAY_MAX`]. An idle
//! log is never synced.
//!
//! A file that grows makes every fsync write its length too, which takes as long again as the data. So the writer keeps
//! room of zeros ahead of what it writes ([`ROOM_BYTES_MAX`]); it is cut off when the segment is complete, and at a
//! clean shutdown. The first failed write or fsync is the last: what the file holds is unknown from then on,
//! so the fatal hook is called (it ends the process) and everything later is refused.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::disk::{Disk, DiskFile};
use super::recover::segment_name;
use crate::config::FatalHook;

/// The longest a relaxed write waits for its fsync.
pub(crate) const SYNC_DELAY_MAX: Duration = Duration::from_secs(1);
/// Zeros ahead of what is written. One sync in so many bytes pays for them: twice this makes it slow, half makes it
/// frequent.
pub(super) const ROOM_BYTES_MAX: u64 = 512 * 1024;
/// Bytes taken together for one write.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Told once, when a write is as durable as was asked, or never will be.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

pub(super) enum Command {
    Write {
        bytes: Vec<u8>,
        sync: bool,
        done: Done,
    },
    /// Seals the current segment and goes on in a new one that begins with `bytes`.
    Rotate {
        number: u64,
        bytes: Vec<u8>,
        synced: Arc<AtomicU64>,
    },
    /// Removes segments nobody needs any more.
    Remove {
        numbers: Vec<u64>,
    },
    Stop,
}

pub(super) struct Writer {
    pub disk: Arc<dyn Disk>,
    pub file: Box<dyn DiskFile>,
    /// Bytes in the current segment.
    pub length: u64,
    /// Where the room ends that was made in it; less than `length` when there is none.
    pub room_end: u64,
    /// Made at a time.
    pub room_bytes: u64,
    /// How many of the current segment's bytes are durable; read by the side that encodes frames.
    pub synced: Arc<AtomicU64>,
    /// Taken when it is called.
    pub fatal: Option<FatalHook>,
}

/// What a command leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Stop,
}

impl Writer {
    /// Ends with everything synced, when told so or when nobody is left to send anything.
    pub fn run(mut self, inbox: &Receiver<Command>) {
        if let Err(error) = self.serve(inbox) {
            self.fail(&error);
            while let Ok(command) = inbox.recv() {
                if refuse(command) == Flow::Stop {
                    return;
                }
            }
        }
    }

    fn serve(&mut self, inbox: &Receiver<Command>) -> io::Result<()> {
        let mut sync_due: Option<Instant> = None;
        loop {
            let received = match sync_due {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => inbox.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match received {
                Ok(command) => {
                    if self.take(command, inbox)? == Flow::Stop {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.sync()?,
                Err(RecvTimeoutError::Disconnected) => return self.sync(),
            }
            sync_due = self.is_dirty().then(|| sync_due.unwrap_or_else(|| Instant::now() + SYNC_DELAY_MAX));
        }
    }

    /// Does `first` and whatever is taken from `inbox` along with it.
    pub fn take(&mut self, first: Command, inbox: &Receiver<Command>) -> io::Result<Flow> {
        let mut next = Some(first);
        while let Some(command) = next.take() {
            match command {
                Command::Write { bytes, sync, done } => {
                    next = self.write_batch(Pending { bytes, sync, dones: vec![done] }, inbox)?;
                }
                Command::Rotate { number, bytes, synced } => self.rotate(number, &bytes, synced)?,
                Command::Remove { numbers } => self.remove(&numbers)?,
                Command::Stop => return self.complete().map(|()| Flow::Stop),
            }
        }
        Ok(Flow::Continue)
    }

    /// Is anything written and not yet synced?
    pub fn is_dirty(&self) -> bool {
        self.synced.load(Ordering::Relaxed) < self.length
    }

    /// Takes whatever else waits; a command that is not a write ends the batch and is handed back.
    fn write_batch(&mut self, mut batch: Pending, inbox: &Receiver<Command>) -> io::Result<Option<Command>> {
        let mut left = None;
        while batch.bytes.len() < BATCH_BYTES_MAX {
            match inbox.try_recv() {
                Ok(Command::Write { bytes, sync, done }) => {
                    batch.bytes.extend_from_slice(&bytes);
                    batch.sync |= sync;
                    batch.dones.push(done);
                }
                Ok(command) => {
                    left = Some(command);
                    break;
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let result = self.write(&batch.bytes, batch.sync);
        if let Err(error) = &result {
            // First, so that nobody acts on an answer of a process that is about to end.
            self.fail(error);
        }
        for done in batch.dones {
            done(result.as_ref().copied().map_err(|error| io::Error::new(error.kind(), error.to_string())));
        }
        result.map(|()| left)
    }

    pub fn fail(&mut self, error: &io::Error) {
        if let Some(fatal) = self.fatal.take() {
            fatal.call(&format!("the log cannot be written: {error}"));
        }
    }

    fn write(&mut self, bytes: &[u8], sync: bool) -> io::Result<()> {
        if !bytes.is_empty() {
            self.file.append(bytes)?;
            self.length += bytes.len() as u64;
            if self.length > self.room_end {
                self.file.reserve(self.room_bytes)?;
                self.room_end = self.length + self.room_bytes;
            }
        }
        if sync { self.sync() } else { Ok(()) }
    }

    pub fn sync(&mut self) -> io::Result<()> {
        if self.is_dirty() {
            self.file.sync()?;
            self.synced.store(self.length, Ordering::Release);
        }
        Ok(())
    }

    /// Nothing is written to the segment after this, or nothing soon: all of it is durable, and it ends where its
    /// frames end.
    fn complete(&mut self) -> io::Result<()> {
        if self.room_end <= self.length {
            return self.sync();
        }
        self.file.trim()?;
        self.room_end = 0;
        self.synced.store(self.length, Ordering::Release);
        Ok(())
    }

    fn rotate(&mut self, number: u64, bytes: &[u8], synced: Arc<AtomicU64>) -> io::Result<()> {
        self.complete()?;
        let (file, length) = create_segment(self.disk.as_ref(), number, bytes)?;
        (self.file, self.length, self.room_end, self.synced) = (file, length, 0, synced);
        self.synced.store(length, Ordering::Release);
        Ok(())
    }

    fn remove(&mut self, numbers: &[u64]) -> io::Result<()> {
        // What purged them must be durable before they go.
        self.sync()?;
        numbers.iter().try_for_each(|&number| self.disk.remove(&segment_name(number)))
    }
}

struct Pending {
    bytes: Vec<u8>,
    sync: bool,
    dones: Vec<Done>,
}

/// A segment appears whole: synced under another name, then renamed.
pub(super) fn create_segment(disk: &dyn Disk, number: u64, bytes: &[u8]) -> io::Result<(Box<dyn DiskFile>, u64)> {
    let name = segment_name(number);
    let temporary = format!("{name}.tmp");
    let mut file = disk.create(&temporary)?;
    file.append(bytes)?;
    file.sync()?;
    disk.rename(&temporary, &name)?;
    Ok((file, bytes.len() as u64))
}

/// After the log has failed.
pub(super) fn refuse(command: Command) -> Flow {
    match command {
        Command::Write { done, .. } => {
            done(Err(io::Error::other("the log failed earlier and takes no more writes")));
            Flow::Continue
        }
        Command::Rotate { .. } | Command::Remove { .. } => Flow::Continue,
        Command::Stop => Flow::Stop,
    }
}
