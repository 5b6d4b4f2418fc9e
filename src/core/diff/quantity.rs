//! Quantities: `1000m` and `1` are the same amount of CPU.

/// Returns whether two texts are quantities of the same amount, so that a server may print one for the other.
pub(super) fn same_amount(a: &str, b: &str) -> bool {
    matches!((amount(a), amount(b)), (Some(a), Some(b)) if a == b)
}

/// An amount as a fraction of ten to the power, exact: (digits without trailing zeros, power of ten).
fn amount(text: &str) -> Option<(i128, i32)> {
    let end = text.find(|character: char| !matches!(character, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (factor, power) = suffix_of(suffix)?;
    let (sign, digits) = match number.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let parse = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok().map(i128::from) };
    let places = i32::try_from(fraction.len()).ok().filter(|places| *places <= 18)?;
    let mut value = (parse(whole)? * 10_i128.pow(places.unsigned_abs()) + parse(fraction)?).checked_mul(factor)? * sign;
    let mut power = power - places;
    if value == 0 {
        return Some((0, 0));
    }
    while value % 10 == 0 {
        value /= 10;
        power += 1;
    }
    Some((value, power))
}

/// Returns what a suffix multiplies by: a factor, and a power of ten.
fn suffix_of(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => (1, suffix.strip_prefix(['e', 'E'])?.parse::<i8>().ok()?.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::same_amount;

    #[test]
    fn the_same_amount_is_the_same_however_it_is_written() {
        for (a, b) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1Gi", "1024Mi"),
            ("1e3", "1k"),
            ("1.50", "1500m"),
            ("0", "0m"),
            ("128974848", "123Mi"),
        ] {
            assert!(same_amount(a, b), "{a} {b}");
        }
        for (a, b) in [("1", "2"), ("1G", "1Gi"), ("x", "x"), ("", "0"), ("1m", "1M"), ("1.1.1", "1"), ("-1", "1")] {
            assert!(!same_amount(a, b), "{a} {b}");
        }
    }
}
