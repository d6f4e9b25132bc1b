//! An object as it is stored: canonical bytes beside the few fields that selectors read.

pub mod encode;
pub mod facets;
