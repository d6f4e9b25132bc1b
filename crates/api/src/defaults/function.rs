//! Functions.

use super::{Fields, absent, ensured, text};
use crate::function::{CALLS_AT_ONCE_DEFAULT, MEMORY_DEFAULT, TIMEOUT_DEFAULT};

pub(super) fn function(fields: &mut Fields) {
    let Some(spec) = ensured(fields, "spec") else { return };
    absent(spec, "replicas", || 1.into());
    text(spec, "interfaceChanges", "Compatible");
    let Some(limits) = ensured(spec, "limits") else { return };
    absent(limits, "memory", || MEMORY_DEFAULT.into());
    text(limits, "timeout", TIMEOUT_DEFAULT);
    absent(limits, "callsAtOnce", || CALLS_AT_ONCE_DEFAULT.into());
}
