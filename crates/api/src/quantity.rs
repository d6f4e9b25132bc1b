//! `resource.Quantity`: exact decimal numbers with SI or binary suffixes.
//!
//! Owns: parsing, comparing, adding and the canonical text (apimachinery `pkg/api/resource`).
//! Numbers are kept as nano-units in an `i128`, which covers everything from 1n to beyond 2^63.

use std::fmt;

use thiserror::Error;

const NANOS: i128 = 1_000_000_000;

/// Which family of suffixes a quantity was written with; the canonical text keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

/// An exact amount. Equality and order look at the amount only.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The wording of apimachinery's `ErrFormatWrong`.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct QuantityError;

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// Largest power of ten that is accepted as an exponent; more cannot fit an `i128` of nanos.
const EXPONENT_MAX: i32 = 18;

impl Quantity {
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// Whole units.
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANOS, format: Format::DecimalSi }
    }

    /// Thousandths, as CPU is counted.
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANOS / 1000), format: Format::DecimalSi }
    }

    /// Bytes, shown with binary suffixes.
    pub fn from_bytes(bytes: u64) -> Self {
        Self { nanos: i128::from(bytes) * NANOS, format: Format::BinarySi }
    }

    /// Reads `100m`, `1.5`, `2Gi`, `1e3`, `-3`. Precision beyond nano is rounded up (away from
    /// zero), as Kubernetes does.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let text = text.trim();
        let split = text
            .char_indices()
            .find(|&(i, c)| !(c.is_ascii_digit() || c == '.' || (i == 0 && (c == '+' || c == '-'))))
            .map_or(text.len(), |(i, _)| i);
        let (number, suffix) = text.split_at(split);
        let (negative, digits) = match number.as_bytes().first() {
            Some(b'-') => (true, &number[1..]),
            Some(b'+') => (false, &number[1..]),
            _ => (false, number),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || digits.len() > 40 {
            return Err(QuantityError);
        }
        let (scale, format) = parse_suffix(suffix)?;
        let magnitude = scale.apply(whole, fraction).ok_or(QuantityError)?;
        Ok(Self { nanos: if negative { -magnitude } else { magnitude }, format })
    }

    /// Thousandths, rounded up.
    pub fn as_millis(&self) -> i64 {
        clamp(div_ceil(self.nanos, NANOS / 1000))
    }

    /// Whole units (bytes, pods), rounded up.
    pub fn as_units(&self) -> i64 {
        clamp(div_ceil(self.nanos, NANOS))
    }

    /// [`Self::as_units`], never below zero.
    pub fn as_bytes(&self) -> u64 {
        u64::try_from(self.as_units()).unwrap_or(0)
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Keeps the format of the first that is not zero.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "an operator would hide that the format is the left one's")]
    pub fn add(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }

    /// Keeps the format of the first that is not zero.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "an operator would hide that the format is the left one's")]
    pub fn sub(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_sub(other.nanos), format }
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn div_ceil(value: i128, by: i128) -> i128 {
    let quotient = value.div_euclid(by);
    if value.rem_euclid(by) == 0 { quotient } else { quotient + 1 }
}

enum Scale {
    Binary(u32),
    Decimal(i32),
}

impl Scale {
    /// Nano-units of `whole.fraction` times the scale; None when it does not fit.
    fn apply(&self, whole: &str, fraction: &str) -> Option<i128> {
        let digits: String = format!("{whole}{fraction}");
        let mantissa: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
        let places = i32::try_from(fraction.len()).ok()?;
        match self {
            Self::Binary(bits) => {
                let scaled = mantissa.checked_mul(1_i128 << bits)?.checked_mul(NANOS)?;
                Some(div_ceil(scaled, 10_i128.checked_pow(u32::try_from(places).ok()?)?))
            }
            Self::Decimal(power) => {
                let exponent = power + 9 - places;
                if exponent >= 0 {
                    mantissa.checked_mul(10_i128.checked_pow(exponent.unsigned_abs())?)
                } else {
                    Some(div_ceil(mantissa, 10_i128.checked_pow(exponent.unsigned_abs())?))
                }
            }
        }
    }
}

fn parse_suffix(suffix: &str) -> Result<(Scale, Format), QuantityError> {
    if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Ok((Scale::Binary(*bits), Format::BinarySi));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Scale::Decimal(*power), Format::DecimalSi));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError)?;
    let power: i32 = exponent.parse().map_err(|_| QuantityError)?;
    if power.abs() > EXPONENT_MAX {
        return Err(QuantityError);
    }
    Ok((Scale::Decimal(power), Format::DecimalExponent))
}

impl fmt::Display for Quantity {
    /// The canonical text: largest suffix without a fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi && self.nanos % NANOS == 0 && (self.nanos / NANOS).abs() >= 1024 {
            let units = self.nanos / NANOS;
            let best = BINARY.iter().rev().find(|(_, bits)| units % (1_i128 << bits) == 0);
            return match best {
                Some((name, bits)) => write!(f, "{}{name}", units >> bits),
                None => write!(f, "{units}"),
            };
        }
        let (name, power) = DECIMAL
            .iter()
            .rev()
            .find(|(_, power)| self.nanos % 10_i128.pow((power + 9).unsigned_abs()) == 0)
            .expect("every number of nanos is a multiple of one nano");
        let mantissa = self.nanos / 10_i128.pow((power + 9).unsigned_abs());
        match self.format {
            Format::DecimalExponent if *power != 0 => write!(f, "{mantissa}e{power}"),
            Format::DecimalExponent | Format::DecimalSi | Format::BinarySi => write!(f, "{mantissa}{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_and_prints_canonically() {
        let cases = [
            // text, canonical, millis, units
            ("100m", "100m", 100, 1),
            ("1", "1", 1000, 1),
            ("0.5", "500m", 500, 1),
            ("1.5", "1500m", 1500, 2),
            ("2Gi", "2Gi", 2_147_483_648_000, 2_147_483_648),
            ("1024Mi", "1Gi", 1_073_741_824_000, 1_073_741_824),
            ("1.5Gi", "1536Mi", 1_610_612_736_000, 1_610_612_736),
            ("1000k", "1M", 1_000_000_000, 1_000_000),
            ("1e3", "1e3", 1_000_000, 1000),
            ("12E", "12E", i64::MAX, i64::MAX),
            ("0", "0", 0, 0),
            ("-1", "-1", -1000, -1),
            ("100Ki", "100Ki", 102_400_000, 102_400),
            ("0.1n", "1n", 1, 1),
            (".5", "500m", 500, 1),
        ];
        for (text, canonical, millis, units) in cases {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!(quantity.to_string(), canonical, "{text}");
            assert_eq!((quantity.as_millis(), quantity.as_units()), (millis, units), "{text}");
        }
        for text in ["", "x", "1x", "1.2.3", "--1", "Gi", "1e", "1e99", "1 Gi", "."] {
            assert!(Quantity::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn arithmetic_keeps_format() {
        let sum = Quantity::ZERO.add(Quantity::parse("1Gi").unwrap()).add(Quantity::parse("512Mi").unwrap());
        assert_eq!(sum.to_string(), "1536Mi");
        assert!(Quantity::parse("1").unwrap() > Quantity::parse("999m").unwrap());
        assert!(Quantity::from_millis(1).sub(Quantity::from_units(1)).is_negative());
    }

    proptest! {
        #[test]
        fn canonical_text_reads_back(units in any::<i32>(), suffix in 0_usize..10) {
            let text = format!("{units}{}", DECIMAL[suffix].0);
            let quantity = Quantity::parse(&text).unwrap();
            prop_assert_eq!(Quantity::parse(&quantity.to_string()).unwrap(), quantity);
        }
    }
}
