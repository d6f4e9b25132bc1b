//! Figures from samples. Pure.

/// The value below which `percent` of the samples lie, by nearest rank; `None` without samples.
pub fn percentile(samples: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// The middle sample, or the mean of the two in the middle.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// Milliseconds, as all times are shown.
pub fn millis(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let check = |samples: &[f64], percent: f64, expect: Option<f64>| {
            assert_eq!(percentile(samples, percent), expect, "{samples:?} at {percent}");
        };
        check(&[], 50.0, None);
        check(&[7.0], 0.0, Some(7.0));
        check(&[7.0], 99.0, Some(7.0));
        check(&[3.0, 1.0, 2.0, 4.0], 50.0, Some(2.0));
        check(&[3.0, 1.0, 2.0, 4.0], 99.0, Some(4.0));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        check(&hundred, 99.0, Some(99.0));
        check(&hundred, 100.0, Some(100.0));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let check = |samples: &[f64], expect: Option<f64>| assert_eq!(median(samples), expect, "{samples:?}");
        check(&[], None);
        check(&[5.0], Some(5.0));
        check(&[9.0, 1.0, 5.0], Some(5.0));
        check(&[4.0, 1.0, 2.0, 9.0], Some(3.0));
    }
}
