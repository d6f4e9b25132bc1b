//! Sets of completion indexes and their text: `1,3-5,7`. Pure.

use std::collections::BTreeSet;

pub type Indexes = BTreeSet<i32>;

/// Reads what `render` writes; whatever is not below `limit`, or no number, is left out.
#[must_use]
pub fn parse(text: &str, limit: i32) -> Indexes {
    let mut indexes = Indexes::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.trim().parse::<i32>(), last.trim().parse::<i32>()) else { continue };
        indexes.extend(first.max(0)..=last.min(limit - 1));
    }
    indexes
}

/// Runs of three and more are joined by a dash.
#[must_use]
pub fn render(indexes: &Indexes) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let shown = |(first, last): &(i32, i32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    runs.iter().map(shown).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for (given, expect) in [("", ""), ("0", "0"), ("1,2", "1,2"), ("0-2,4,6,7", "0-2,4,6,7"), ("3,1-2", "1-3")] {
            assert_eq!(render(&parse(given, 100)), expect, "{given}");
        }
        assert_eq!(render(&parse("0-9", 4)), "0-3", "beyond the limit");
        assert_eq!(render(&parse("x,-3,2", 4)), "2", "no numbers");
    }
}
