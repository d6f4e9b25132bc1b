//! One writer: a value owned by a task, others send it the change they want.

use tokio::sync::{mpsc, oneshot};

/// Changes waiting at a time; more senders wait their turn.
const QUEUE: usize = 256;

type Change<T> = Box<dyn FnOnce(&mut T) + Send>;

/// Handle to the owner of a `T`. The owner ends with the last handle.
pub struct Owned<T> {
    changes: mpsc::Sender<Change<T>>,
}

impl<T> Clone for Owned<T> {
    fn clone(&self) -> Self {
        Self { changes: self.changes.clone() }
    }
}

impl<T: Send + 'static> Owned<T> {
    pub fn spawn(mut value: T) -> Self {
        let (changes, mut queue) = mpsc::channel::<Change<T>>(QUEUE);
        tokio::spawn(async move {
            while let Some(change) = queue.recv().await {
                change(&mut value);
            }
        });
        Self { changes }
    }

    /// Runs `change` on the value, after every change sent before it. It must not block.
    pub async fn with<R: Send + 'static>(&self, change: impl FnOnce(&mut T) -> R + Send + 'static) -> R {
        let (answer, answered) = oneshot::channel();
        let change: Change<T> = Box::new(move |value| {
            let _ = answer.send(change(value));
        });
        assert!(self.changes.send(change).await.is_ok(), "the owner lives as long as its handles");
        answered.await.expect("the owner answers every change")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_apply_in_order() {
        let list = Owned::spawn(Vec::new());
        for number in 0..100 {
            list.with(move |list: &mut Vec<u32>| list.push(number)).await;
        }
        assert_eq!(list.clone().with(|list| list.clone()).await, (0..100).collect::<Vec<_>>());
    }
}
