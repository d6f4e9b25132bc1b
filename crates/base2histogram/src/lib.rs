//! Stands in for the crate of the same name, by `[patch.crates-io]`.
//!
//! openraft keeps statistics of itself in these histograms, and nothing here reads them. The crate computes tables for
//! sixteen resolutions as soon as the first histogram is made: 26 MB, a third of an idle server's memory. This one
//! counts samples. See `docs/decisions/0043-statistics-that-nobody-reads.md`.
//!
//! Owns: the part of that crate's interface that openraft uses. Nothing else may use it.

use std::fmt;
use std::marker::PhantomData;

/// Counts what was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    samples: u64,
    of: PhantomData<T>,
}

impl<T> Histogram<T> {
    pub fn new() -> Self {
        Self { samples: 0, of: PhantomData }
    }

    pub fn record(&mut self, _value: u64) {
        self.samples += 1;
    }

    pub fn record_n(&mut self, _value: u64, count: u64) {
        self.samples += count;
    }

    /// All but the number of samples is zero.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats { samples: self.samples, ..PercentileStats::default() }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Percentiles of what was recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} samples", self.samples)
    }
}

/// Says how many samples there are of each.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart(Vec<(String, u64)>);

impl AsciiChart {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.0.push((name.into(), histogram.samples));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, samples)| writeln!(f, "{name}: {samples} samples"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_counted() {
        let mut histogram = Histogram::<()>::new();
        histogram.record(7);
        histogram.record_n(9, 2);
        assert_eq!(histogram.percentile_stats().to_string(), "3 samples");
        assert_eq!(AsciiChart::new().add("all", histogram).to_string(), "all: 3 samples\n");
    }
}
