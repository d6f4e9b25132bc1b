//! flowcontrol.apiserver.k8s.io (`pkg/apis/flowcontrol/v1/defaults.go`).

use super::{Fields, absent, ensured, inner, number, str_of};

const PRECEDENCE: i64 = 1000;
const SHARES: i64 = 30;
const QUEUES: i64 = 64;
const HAND_SIZE: i64 = 8;
const QUEUE_LENGTH: i64 = 50;

pub(super) fn schema(fields: &mut Fields) {
    if let Some(spec) = ensured(fields, "spec") {
        number(spec, "matchingPrecedence", PRECEDENCE);
    }
}

pub(super) fn level(fields: &mut Fields) {
    let Some(spec) = ensured(fields, "spec") else { return };
    if str_of(spec, "type") == "Exempt" {
        ensured(spec, "exempt");
    }
    if let Some(exempt) = inner(spec, "exempt") {
        absent(exempt, "nominalConcurrencyShares", || 0.into());
        absent(exempt, "lendablePercent", || 0.into());
    }
    let Some(limited) = inner(spec, "limited") else { return };
    absent(limited, "nominalConcurrencyShares", || SHARES.into());
    absent(limited, "lendablePercent", || 0.into());
    if let Some(queuing) = inner(limited, "limitResponse").and_then(|response| inner(response, "queuing")) {
        number(queuing, "queues", QUEUES);
        number(queuing, "handSize", HAND_SIZE);
        number(queuing, "queueLengthLimit", QUEUE_LENGTH);
    }
}
