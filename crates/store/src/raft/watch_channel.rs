//! A channel for the newest value of something. tokio's own picks by random numbers who is woken first; this one
//! wakes in the order of waiting, so that a simulation with the same seed takes the same course.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::task::{Context, Poll, Waker};

use openraft::async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use openraft::{OptionalSend, OptionalSync};

struct Channel<T> {
    value: RwLock<T>,
    /// Locked after `value` where both are needed.
    waiting: Mutex<Waiting>,
}

struct Waiting {
    /// Counts the changes of the value.
    version: u64,
    senders: usize,
    receivers: usize,
    next_id: u64,
    wakers: VecDeque<(u64, Waker)>,
}

impl<T> Channel<T> {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut value = self.value.write().unwrap_or_else(PoisonError::into_inner);
        if !change(&mut value) {
            return false;
        }
        let mut waiting = self.waiting();
        waiting.version += 1;
        let wakers = std::mem::take(&mut waiting.wakers);
        drop(waiting);
        drop(value);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
        true
    }
}

pub(crate) struct OrderedWatch;

pub(crate) struct Sender<T>(Arc<Channel<T>>);

pub(crate) struct Receiver<T> {
    channel: Arc<Channel<T>>,
    seen: u64,
}

pub(crate) struct Ref<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let waiting = Waiting { version: 0, senders: 1, receivers: 1, next_id: 0, wakers: VecDeque::new() };
    let channel = Arc::new(Channel { value: RwLock::new(value), waiting: Mutex::new(waiting) });
    (Sender(channel.clone()), Receiver { channel, seen: 0 })
}

impl Watch for OrderedWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        channel(init)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.waiting().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.senders -= 1;
        if waiting.senders == 0 {
            let wakers = std::mem::take(&mut waiting.wakers);
            drop(waiting);
            wakers.into_iter().for_each(|(_, waker)| waker.wake());
        }
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<OrderedWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.waiting().receivers == 0 {
            return Err(SendError(value));
        }
        self.0.change(|current| {
            *current = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<C: FnOnce(&mut T) -> bool>(&self, modify: C) -> bool {
        self.0.change(modify)
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        Ref(self.0.read())
    }

    fn subscribe(&self) -> Receiver<T> {
        let mut waiting = self.0.waiting();
        waiting.receivers += 1;
        Receiver { channel: self.0.clone(), seen: waiting.version }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.channel.waiting().receivers += 1;
        Self { channel: self.channel.clone(), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.channel.waiting().receivers -= 1;
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<OrderedWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        Changed { receiver: self, waits_as: None }.await
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        Ref(self.channel.read())
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.channel.read();
        self.seen = self.channel.waiting().version;
        Ref(value)
    }
}

/// Ready when there is a value the receiver has not seen, or never will be one.
struct Changed<'a, T> {
    receiver: &'a mut Receiver<T>,
    waits_as: Option<u64>,
}

impl<T> Future for Changed<'_, T> {
    type Output = Result<(), RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut waiting = this.receiver.channel.waiting();
        if waiting.version != this.receiver.seen {
            let seen = waiting.version;
            drop(waiting);
            this.receiver.seen = seen;
            return Poll::Ready(Ok(()));
        }
        if waiting.senders == 0 {
            return Poll::Ready(Err(RecvError(())));
        }
        let id = this.waits_as.unwrap_or(waiting.next_id);
        match waiting.wakers.iter_mut().find(|(waiter, _)| *waiter == id) {
            Some((_, waker)) => waker.clone_from(context.waker()),
            None => {
                waiting.next_id = waiting.next_id.max(id + 1);
                waiting.wakers.push_back((id, context.waker().clone()));
            }
        }
        this.waits_as = Some(id);
        Poll::Pending
    }
}

impl<T> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        if let Some(id) = self.waits_as {
            self.receiver.channel.waiting().wakers.retain(|(waiter, _)| *waiter != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiters_are_woken_in_their_order() {
        let (sender, receiver) = channel(0);
        let (log, mut order) = tokio::sync::mpsc::unbounded_channel();
        for id in 0..20 {
            let (mut receiver, log) = (receiver.clone(), log.clone());
            tokio::spawn(async move {
                while receiver.changed().await.is_ok() {
                    log.send((*receiver.borrow_and_update(), id)).unwrap();
                }
            });
        }
        for round in 1..5 {
            tokio::task::yield_now().await;
            sender.send(round).unwrap();
            for id in 0..20 {
                assert_eq!(order.recv().await, Some((round, id)));
            }
        }
    }

    #[tokio::test]
    async fn a_change_is_seen_once_and_the_end_too() {
        let (sender, mut receiver) = channel(1);
        assert!(!sender.send_if_modified(|_| false));
        assert!(sender.send_if_greater(2));
        assert!(!sender.send_if_greater(2));
        receiver.changed().await.unwrap();
        let unseen = tokio::time::timeout(std::time::Duration::from_millis(5), receiver.changed()).await;
        assert!(unseen.is_err(), "the same change twice");
        let mut late = sender.subscribe();
        drop(sender);
        assert!(receiver.changed().await.is_err());
        assert!(late.changed().await.is_err());
        assert_eq!(*late.borrow_watched(), 2);
    }

    #[test]
    fn a_value_for_nobody_comes_back() {
        let (sender, receiver) = channel(1);
        drop(receiver);
        assert_eq!(sender.send(2).unwrap_err().0, 2);
        assert_eq!(*sender.borrow_watched(), 1);
    }
}
