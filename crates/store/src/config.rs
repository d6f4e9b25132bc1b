//! What an operator may choose about a store.

use std::path::PathBuf;

use crate::mvcc::HistoryLimits;
use crate::types::MemberId;

#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Everything the store keeps is below this directory, which it alone may touch.
    pub dir: PathBuf,
    pub member_id: MemberId,
    pub history: HistoryLimits,
}

impl StoreConfig {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), member_id: MemberId(1), history: HistoryLimits::default() }
    }
}
