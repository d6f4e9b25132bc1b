//! Counters raise one number together, by compare and swap through different servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::PostParams;

use super::shared::{Shared, set_number, version};
use crate::client::{Failure, failure, timely};

const PAUSE: Duration = Duration::from_millis(30);

/// Reads through one server and writes through the next.
pub async fn count(shared: Arc<Shared>, counter: usize) {
    let mut server = counter;
    while !shared.is_stopped() {
        server += 1;
        raise(&shared, server).await;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn raise(shared: &Shared, server: usize) {
    let name = shared.counter();
    let Ok(mut object) = timely(shared.api(server).get(&name)).await else { return };
    let Some(number) = version(&object).number else {
        shared.record().absurd.push(format!("the counter has no number: {object:?}"));
        return;
    };
    set_number(&mut object, number + 1);
    match timely(shared.api(server + 1).replace(&name, &PostParams::default(), &object)).await {
        Ok(raised) => {
            shared.learn(number + 1);
            let mut record = shared.record();
            record.acknowledgements.push(Instant::now());
            record.increments.push((number + 1, version(&raised).resource_version));
        }
        Err(error) => match failure(error.as_ref()) {
            Failure::Refused | Failure::Conflict => {}
            Failure::Unknown => shared.record().increments_unknown += 1,
            Failure::Exists => shared.record().absurd.push(format!("an update was answered {error:?}")),
        },
    }
}
