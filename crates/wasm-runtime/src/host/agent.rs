//! The host's side of calls to the agent.
//!
//! Owns: the one channel to the agent, replaced when an agent comes back, and the calls that wait for it or for
//! an answer. A call that was not sent yet waits for an agent for a while. One whose channel broke is asked again
//! when it only reads; a write is answered with "nobody knows". May not know: what a call means.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cri::KeyValueError;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::calls::{self, Answer, Ask, Call, IN_FLIGHT_MAX, Reply};

/// How long a call waits for an agent that is not there: a restart takes a second or two.
const AGENT_WAIT: Duration = Duration::from_secs(5);
/// How long the agent may take with one; it gives up a little earlier itself.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// An agent that does not read for so long is not there.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls that wait to be sent; the next ones wait to be taken.
const QUEUE: usize = 256;

/// What guests' calls go through. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AgentHandle {
    calls: mpsc::Sender<Pending>,
    channels: mpsc::Sender<UnixStream>,
    agent_wait: Duration,
}

#[derive(Debug)]
struct Pending {
    frame: Vec<u8>,
    id: u64,
    /// Set by whoever is first: the worker that sends it, or the caller that gives up.
    claimed: Arc<AtomicBool>,
    answer: oneshot::Sender<Result<Answer, KeyValueError>>,
}

/// Why a call came back without an answer.
enum Lost {
    /// It was never sent.
    Unsent,
    /// Its channel broke, or its answer did not come.
    Unanswered,
}

impl AgentHandle {
    pub fn spawn() -> Self {
        Self::spawn_patient(AGENT_WAIT)
    }

    fn spawn_patient(agent_wait: Duration) -> Self {
        let (calls, queued) = mpsc::channel(QUEUE);
        let (channels, arriving) = mpsc::channel(1);
        tokio::spawn(Worker { queued, arriving, channel: None, in_flight: BTreeMap::new() }.run());
        Self { calls, channels, agent_wait }
    }

    /// From now on calls go here. What is under way on the channel before is lost.
    pub async fn attach(&self, channel: std::os::unix::net::UnixStream) -> io::Result<()> {
        channel.set_nonblocking(true)?;
        let channel = UnixStream::from_std(channel)?;
        self.channels.send(channel).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    pub async fn call(&self, container: &str, store: &str, ask: Ask) -> Result<Answer, KeyValueError> {
        let until = Instant::now() + self.agent_wait;
        loop {
            match self.once(container, store, &ask, until).await {
                Ok(outcome) => return outcome,
                Err(Lost::Unanswered) if ask.is_read() && Instant::now() < until => {}
                Err(Lost::Unanswered) if !ask.is_read() => {
                    return Err(KeyValueError::Unknown { why: "the node agent did not answer".to_owned() });
                }
                Err(_) => return Err(KeyValueError::Unavailable { why: "the node agent does not answer".to_owned() }),
            }
        }
    }

    async fn once(
        &self,
        container: &str,
        store: &str,
        ask: &Ask,
        until: Instant,
    ) -> Result<Result<Answer, KeyValueError>, Lost> {
        let id = rand::random();
        let call = Call { id, container: container.to_owned(), store: store.to_owned(), ask: ask.clone() };
        let Some(frame) = calls::encode(&call) else {
            return Ok(Err(KeyValueError::Invalid { why: "key and value are too long".to_owned() }));
        };
        let claimed = Arc::new(AtomicBool::new(false));
        let (answer, mut answered) = oneshot::channel();
        let pending = Pending { frame, id, claimed: Arc::clone(&claimed), answer };
        match timeout_at(until, self.calls.send(pending)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(Lost::Unsent),
        }
        match timeout_at(until, &mut answered).await {
            Ok(outcome) => return outcome.map_err(|_| Lost::Unanswered),
            Err(_) if !claimed.swap(true, Ordering::AcqRel) => return Err(Lost::Unsent),
            Err(_) => {}
        }
        // It was sent: now it is the answer that takes its time.
        match timeout_at(until + ANSWER_WAIT, answered).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_)) | Err(_) => Err(Lost::Unanswered),
        }
    }
}

struct Channel {
    write: OwnedWriteHalf,
    replies: mpsc::Receiver<Reply>,
    _reader: AbortOnDropHandle<()>,
}

struct Worker {
    queued: mpsc::Receiver<Pending>,
    arriving: mpsc::Receiver<UnixStream>,
    channel: Option<Channel>,
    in_flight: BTreeMap<u64, oneshot::Sender<Result<Answer, KeyValueError>>>,
}

enum Event {
    Arrived(UnixStream),
    Asked(Pending),
    Replied(Reply),
    Broken,
    /// The host ends.
    Over,
}

impl Worker {
    async fn run(mut self) {
        loop {
            match self.next().await {
                Event::Arrived(stream) => self.attach(stream),
                Event::Asked(pending) => self.send(pending).await,
                Event::Replied(reply) => {
                    if let Some(answer) = self.in_flight.remove(&reply.id) {
                        let _ = answer.send(reply.outcome);
                    }
                }
                Event::Broken => self.detach(),
                Event::Over => return,
            }
        }
    }

    async fn next(&mut self) -> Event {
        let Some(channel) = &mut self.channel else {
            // Without a channel, calls stay where they are.
            return self.arriving.recv().await.map_or(Event::Over, Event::Arrived);
        };
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            // Of callers that have given up nobody needs the answer, but the agent still works on them: they keep
            // their place until they are answered.
            return tokio::select! {
                arrived = self.arriving.recv() => arrived.map_or(Event::Over, Event::Arrived),
                reply = channel.replies.recv() => reply.map_or(Event::Broken, Event::Replied),
            };
        }
        tokio::select! {
            arrived = self.arriving.recv() => arrived.map_or(Event::Over, Event::Arrived),
            reply = channel.replies.recv() => reply.map_or(Event::Broken, Event::Replied),
            asked = self.queued.recv() => asked.map_or(Event::Over, Event::Asked),
        }
    }

    fn attach(&mut self, stream: UnixStream) {
        self.detach();
        let (read, write) = stream.into_split();
        let (replies, receive) = mpsc::channel(IN_FLIGHT_MAX);
        let reader = AbortOnDropHandle::new(tokio::spawn(read_replies(read, replies)));
        self.channel = Some(Channel { write, replies: receive, _reader: reader });
        tracing::info!("the agent is there for guests' calls");
    }

    /// Drops the channel, and with it the hope of an answer to what was sent.
    fn detach(&mut self) {
        self.channel = None;
        self.in_flight.clear();
    }

    async fn send(&mut self, pending: Pending) {
        let Some(channel) = &mut self.channel else { return };
        if pending.claimed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.in_flight.insert(pending.id, pending.answer);
        let written = tokio::time::timeout(WRITE_TIMEOUT, calls::write(&mut channel.write, &pending.frame)).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::warn!("the agent does not take guests' calls any more");
            self.detach();
        }
    }
}

/// Ends when the channel does.
async fn read_replies(mut read: OwnedReadHalf, replies: mpsc::Sender<Reply>) {
    loop {
        match calls::read::<Reply>(&mut read).await {
            Ok(Some(reply)) => {
                if replies.send(reply).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "the agent's replies do not read");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get() -> Ask {
        Ask::Get { key: "k".to_owned() }
    }

    fn delete() -> Ask {
        Ask::Delete { key: "k".to_owned() }
    }

    fn pair() -> (std::os::unix::net::UnixStream, UnixStream) {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        b.set_nonblocking(true).unwrap();
        (a, UnixStream::from_std(b).unwrap())
    }

    async fn take(stream: &mut UnixStream) -> Call {
        calls::read(stream).await.unwrap().expect("a call")
    }

    async fn reply(stream: &mut UnixStream, id: u64, outcome: Result<Answer, KeyValueError>) {
        calls::write(stream, &calls::encode(&Reply { id, outcome }).unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn answers_find_their_callers_in_any_order() {
        let agent = AgentHandle::spawn();
        let (ours, mut theirs) = pair();
        agent.attach(ours).await.unwrap();
        let ask = |n: i64| {
            let agent = agent.clone();
            let ask = Ask::Increment { key: "k".to_owned(), delta: n };
            tokio::spawn(async move { agent.call("c", "s", ask).await })
        };
        let callers: Vec<_> = (0..3).map(ask).collect();
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.push(take(&mut theirs).await);
        }
        for call in taken.into_iter().rev() {
            let Ask::Increment { delta, .. } = call.ask else { panic!("{call:?}") };
            assert_eq!((call.container.as_str(), call.store.as_str()), ("c", "s"));
            reply(&mut theirs, call.id, Ok(Answer::Sum(delta * 10))).await;
        }
        for (number, caller) in callers.into_iter().enumerate() {
            assert_eq!(caller.await.unwrap(), Ok(Answer::Sum(number as i64 * 10)));
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_an_agent_forever() {
        let agent = AgentHandle::spawn_patient(Duration::from_millis(100));
        let begin = Instant::now();
        let refused = agent.call("c", "s", delete()).await;
        assert!(matches!(refused, Err(KeyValueError::Unavailable { .. })), "{refused:?}");
        assert!(begin.elapsed() >= Duration::from_millis(100) && begin.elapsed() < Duration::from_secs(5));
        // What was given up is not sent to an agent that comes later.
        let (ours, mut theirs) = pair();
        agent.attach(ours).await.unwrap();
        let caller = tokio::spawn({
            let agent = agent.clone();
            async move { agent.call("c", "later", get()).await }
        });
        let call = take(&mut theirs).await;
        assert_eq!(call.store, "later");
        reply(&mut theirs, call.id, Ok(Answer::Value(None))).await;
        assert_eq!(caller.await.unwrap(), Ok(Answer::Value(None)));
    }

    #[tokio::test]
    async fn a_lost_channel_repeats_reads_and_no_writes() {
        let agent = AgentHandle::spawn();
        let (ours, mut first) = pair();
        agent.attach(ours).await.unwrap();
        let call = |ask: Ask| {
            let agent = agent.clone();
            tokio::spawn(async move { agent.call("c", "s", ask).await })
        };
        let (read, write) = (call(get()), call(delete()));
        take(&mut first).await;
        take(&mut first).await;
        drop(first);
        assert!(matches!(write.await.unwrap(), Err(KeyValueError::Unknown { .. })));
        let (ours, mut second) = pair();
        agent.attach(ours).await.unwrap();
        let again = take(&mut second).await;
        assert_eq!(again.ask, get());
        reply(&mut second, again.id, Ok(Answer::Value(None))).await;
        assert_eq!(read.await.unwrap(), Ok(Answer::Value(None)));
    }
}
