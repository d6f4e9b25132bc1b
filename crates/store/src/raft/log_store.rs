//! openraft's log on our write-ahead log: turns entries into bytes, keeps the newest ones decoded, and decides what
//! has to be synced before it is reported.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::Stream;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend, RaftLogReader};
use tokio::sync::{Notify, oneshot};

use super::types::{self, Command, Entry, LogId, Types, Vote, decode_entry, decode_log_id, decode_vote, encode_entry};
use crate::log::{Cell, Done, Sync, Wal, WalBarrier, WalReader, bytes_budget};
use crate::mutation::{Mutation, is_active};
use crate::txn::Durability;

/// Decoded entries kept for whoever reads them next; entries not yet written are kept beyond that.
const CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a follower or the state machine is given in one go.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// When the log has grown enough for a snapshot. Shared by the log, which counts, and the snapshot builder, which
/// begins anew.
#[derive(Default)]
pub(super) struct Growth {
    pub bytes: AtomicU64,
    pub threshold: AtomicU64,
    pub due: Notify,
}

pub(super) struct LogStore {
    wal: Wal,
    reader: LogReader,
    last: Option<LogId>,
    growth: Arc<Growth>,
    alone: Alone,
    /// Index of the newest membership appended. `None`: there was one before the log was opened.
    newest_membership: Option<u64>,
}

/// May relaxed transactions be reported before they are synced? Only while we are the only member: what one has
/// confirmed to others, or sent them, it must not forget. Shared with whoever sees memberships being committed.
#[derive(Clone)]
pub(super) struct Alone {
    /// Index of a committed membership in which nobody else is.
    since: Arc<AtomicU64>,
}

const NOT_ALONE: u64 = u64::MAX;

impl Default for Alone {
    fn default() -> Self {
        Self { since: Arc::new(AtomicU64::new(NOT_ALONE)) }
    }
}

impl Alone {
    /// Holds until the log is given another membership, so that the order of the two calls does not matter.
    pub fn confirm(&self, membership_index: Option<u64>) {
        self.since.store(membership_index.unwrap_or(NOT_ALONE), Ordering::Relaxed);
    }

    fn holds(&self, newest_membership: Option<u64>) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since != NOT_ALONE && newest_membership.is_none_or(|newest| newest == since)
    }
}

#[derive(Clone)]
pub(super) struct LogReader {
    wal: WalReader,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    vote: Option<Vote>,
    /// Consecutive, ending with the last entry of the log.
    cache: VecDeque<(Entry, usize)>,
    cache_bytes: usize,
    /// Entries before this index can be read from the disk.
    written: u64,
}

impl LogStore {
    pub fn open(wal: Wal, growth: Arc<Growth>) -> io::Result<Self> {
        let reader = wal.reader();
        let range = reader.range();
        let vote = wal.cell(Cell::Vote).map(decode_vote).transpose()?;
        let last = match reader.read(range.end.saturating_sub(1)..range.end, 1)?.pop() {
            Some((_, bytes)) => Some(decode_entry(&bytes)?.log_id),
            None => purged(&wal)?,
        };
        growth.bytes.store(reader.bytes(), Ordering::Relaxed);
        let shared = Shared { vote, cache: VecDeque::new(), cache_bytes: 0, written: range.end };
        let reader = LogReader { wal: reader, shared: Arc::new(Mutex::new(shared)) };
        Ok(Self { wal, reader, last, growth, alone: Alone::default(), newest_membership: None })
    }

    pub fn barrier(&self) -> WalBarrier {
        self.wal.barrier()
    }

    pub fn alone(&self) -> Alone {
        self.alone.clone()
    }

    fn needs_sync(&mut self, entry: &Entry) -> bool {
        match &entry.payload {
            EntryPayload::Normal(Command::Txn(txn)) => {
                txn.durability == Durability::Synced || !self.alone.holds(self.newest_membership)
            }
            EntryPayload::Membership(_) => {
                self.newest_membership = Some(entry.log_id.index);
                true
            }
            EntryPayload::Blank | EntryPayload::Normal(Command::ReserveMember) => true,
        }
    }

    fn grow(&self, bytes: u64) {
        let grown = self.growth.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if grown > self.growth.threshold.load(Ordering::Relaxed) {
            self.growth.due.notify_one();
        }
    }
}

/// As it is, but for a bug on demand.
fn early(done: Done) -> Done {
    if is_active(Mutation::AppendReportedEarly) {
        done(Ok(()));
        return Box::new(drop);
    }
    done
}

fn purged(wal: &Wal) -> io::Result<Option<LogId>> {
    Ok(wal.cell(Cell::Purged).map(decode_log_id).transpose()?.flatten())
}

/// A [`Done`] to be awaited.
fn done() -> (Done, impl Future<Output = io::Result<()>>) {
    let (sender, receiver) = oneshot::channel();
    let done: Done = Box::new(move |result| drop(sender.send(result)));
    (done, async move { receiver.await.map_err(|_| io::Error::other("the log is closed"))? })
}

/// Waits until everything appended so far is durable.
pub(super) async fn sync(barrier: &WalBarrier) -> io::Result<()> {
    let (done, synced) = done();
    barrier.sync(done);
    synced.await
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        Ok(LogState { last_purged_log_id: purged(&self.wal)?, last_log_id: self.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, saved) = done();
        self.wal.set_cell(Cell::Vote, 0, types::encode_vote(vote)?, done);
        saved.await?;
        self.reader.shared().vote = Some(*vote);
        Ok(())
    }

    /// A hint that shortens recovery: it reaches the disk with the next entries.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.wal.note_cell(Cell::Committed, types::encode_log_id(committed)?);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.wal.cell(Cell::Committed).map(decode_log_id).transpose()?.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut payloads = Vec::new();
        let mut sync = Sync::Soon;
        let mut fresh = Vec::new();
        for entry in entries {
            if self.needs_sync(&entry) {
                sync = Sync::Now;
            }
            payloads.push(encode_entry(&entry)?);
            self.last = Some(entry.log_id);
            fresh.push(entry);
        }
        let Some(first) = fresh.first().map(|entry| entry.log_id.index) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let bytes = payloads.iter().map(Vec::len).sum::<usize>();
        let end = first + fresh.len() as u64;
        self.reader.shared().extend(fresh.into_iter().zip(payloads.iter().map(Vec::len)));
        let shared = self.reader.shared.clone();
        let done: Done = Box::new(move |result| {
            if result.is_ok() {
                lock(&shared).wrote(end);
            }
            callback.io_completed(result);
        });
        self.wal.append(first, &payloads, sync, early(done));
        self.grow(bytes as u64);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        let (done, truncated) = done();
        self.wal.truncate_from(from, done);
        truncated.await?;
        self.reader.shared().truncate_from(from);
        self.last = self.last.min(last);
        if self.newest_membership.is_some_and(|index| index >= from) {
            // Which one counts now is not known here, so nobody is alone until a later one is committed.
            self.newest_membership = Some(NOT_ALONE);
        }
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let (done, purged) = done();
        self.wal.purge(upto.index, types::encode_log_id(Some(upto))?, done);
        purged.await?;
        self.reader.shared().purge(upto.index);
        self.last = self.last.max(Some(upto));
        Ok(())
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("no holder panics: it only moves entries")
}

impl Shared {
    fn extend(&mut self, entries: impl Iterator<Item = (Entry, usize)>) {
        for (entry, bytes) in entries {
            self.cache_bytes += bytes;
            self.cache.push_back((entry, bytes));
        }
    }

    fn wrote(&mut self, end: u64) {
        self.written = end;
        while self.cache_bytes > CACHE_BYTES_MAX
            && self.cache.front().is_some_and(|(entry, _)| entry.log_id.index < end)
        {
            self.pop_front();
        }
    }

    fn purge(&mut self, upto: u64) {
        while self.cache.front().is_some_and(|(entry, _)| entry.log_id.index <= upto) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some((_, bytes)) = self.cache.pop_front() {
            self.cache_bytes -= bytes;
        }
    }

    fn truncate_from(&mut self, index: u64) {
        while self.cache.back().is_some_and(|(entry, _)| entry.log_id.index >= index) {
            let (_, bytes) = self.cache.pop_back().expect("it has a back");
            self.cache_bytes -= bytes;
        }
        self.written = self.written.min(index);
    }

    /// The cached entries of `range`, and where they begin.
    fn cached(&self, range: &Range<u64>, bytes_max: usize) -> (u64, Vec<Entry>) {
        let Some(first) = self.cache.front().map(|(entry, _)| entry.log_id.index) else {
            return (range.end, Vec::new());
        };
        let start = range.start.max(first);
        if start >= range.end {
            return (range.end, Vec::new());
        }
        let mut left = bytes_budget(bytes_max);
        let entries = self.cache.iter().skip((start - first) as usize).take((range.end - start) as usize);
        let entries = entries.take_while(|(_, bytes)| {
            let fits = left > 0;
            left -= *bytes as i64;
            fits
        });
        (start, entries.map(|(entry, _)| entry.clone()).collect())
    }
}

impl LogReader {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    /// Entries from `range.start` on, at least one if there is one. Reads the disk in place: this is for members
    /// that start or have fallen behind, and the pages are nearly always in memory.
    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let (cached_from, cached) = self.shared().cached(&range, bytes_max);
        if cached_from == range.start {
            return Ok(cached);
        }
        let stored = self.wal.read(range.start..cached_from, bytes_max)?;
        stored.iter().map(|(_, bytes)| decode_entry(bytes)).collect()
    }

    fn bounded(&self, range: &impl RangeBounds<u64>) -> Range<u64> {
        let there = self.wal.range();
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start + 1,
            Bound::Unbounded => there.start,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => there.end,
        };
        start.max(there.start)..end.min(there.end)
    }
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let mut range = self.bounded(&range);
        let mut entries = Vec::new();
        while range.start < range.end {
            let more = self.read(range.clone(), READ_BYTES_MAX)?;
            if more.is_empty() {
                break;
            }
            range.start += more.len() as u64;
            entries.extend(more);
        }
        Ok(entries)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let range = self.bounded(&range);
        let start = (self.clone(), range, VecDeque::new());
        Box::pin(futures::stream::try_unfold(start, |(reader, mut range, mut ready)| async move {
            if ready.is_empty() && range.start < range.end {
                ready.extend(reader.read(range.clone(), READ_BYTES_MAX)?);
                range.start += ready.len() as u64;
            }
            Ok(ready.pop_front().map(|entry| (entry, (reader, range, ready))))
        }))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(self.bounded(&(start..end)), READ_BYTES_MAX)
    }
}
