//! Writers make objects with names of their own, one after the other or on a beat.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::record::Ending;
use super::shared::Shared;

/// Between two writes of one writer.
const PAUSE: Duration = Duration::from_millis(20);
const BEAT: Duration = Duration::from_millis(10);

/// Writes through one server until that does not acknowledge, then through the next.
pub async fn write(shared: Arc<Shared>, writer: usize) {
    let mut server = writer;
    let mut number = 0;
    while !shared.is_stopped() {
        number += 1;
        match shared.create(server, &format!("w{writer}-{number}")).await {
            Ending::Acknowledged(_) => {}
            Ending::Refused | Ending::Unknown => server += 1,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Tries a write on every beat, through one of these servers after the other.
pub async fn probe(shared: Arc<Shared>, through: Vec<usize>) {
    let mut beat = tokio::time::interval(BEAT);
    let mut tries = JoinSet::new();
    let mut number = 0;
    while shared.is_probing() {
        beat.tick().await;
        number += 1;
        let (shared, server) = (shared.clone(), through[number % through.len()]);
        tries.spawn(async move { shared.create(server, &format!("p-{number}")).await });
    }
    tries.join_all().await;
}
