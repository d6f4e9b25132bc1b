//! Readers read the number: whatever anybody knew before must be there.

use std::sync::Arc;
use std::time::Duration;

use super::shared::{Shared, version};
use crate::client::timely;

const PAUSE: Duration = Duration::from_millis(15);

/// Reads through one server, the last reader through each in turn.
pub async fn read(shared: Arc<Shared>, reader: usize) {
    let mut server = reader;
    let (name, roams) = (shared.counter(), reader >= shared.clients.len());
    while !shared.is_stopped() {
        server += usize::from(roams);
        let known = shared.known();
        if let Ok(object) = timely(shared.api(server).get(&name)).await {
            let number = version(&object).number.unwrap_or_default();
            let mut record = shared.record();
            record.reads += 1;
            if number < known {
                let server = server % shared.clients.len();
                record.stale.push(format!("server {server} answered {number} when {known} was known"));
            }
            drop(record);
            // A number that one read has answered may not be unknown to the next.
            shared.learn(number);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
