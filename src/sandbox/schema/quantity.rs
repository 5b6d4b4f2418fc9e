//! The canonical form of a quantity, as `resource.Quantity` writes it: `1000m` is `1`, `0.5` is `500m`.

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// Returns the canonical form; `None` where `text` is not a quantity.
pub fn canonical(text: &str) -> Option<String> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (sign, digits) = match number.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let mut amount: u128 = format!("{whole}{fraction}").parse().ok()?;
    let mut exponent = -i32::try_from(fraction.len()).ok()?;
    if let Some(power) = BINARY.iter().position(|unit| *unit == suffix) {
        let scale = 1024u128.checked_pow(u32::try_from(power).ok()? + 1)?;
        let divisor = 10u128.checked_pow(exponent.unsigned_abs())?;
        let bytes = amount.checked_mul(scale)?.div_ceil(divisor);
        return Some(format!("{sign}{}", in_binary(bytes)));
    }
    exponent += match DECIMAL.iter().find(|(unit, _)| *unit == suffix) {
        Some((_, power)) => *power,
        None => suffix.strip_prefix(['e', 'E'])?.parse().ok()?,
    };
    if amount == 0 {
        return Some("0".to_owned());
    }
    while amount.is_multiple_of(10) {
        amount /= 10;
        exponent += 1;
    }
    let (unit, power) = DECIMAL.iter().rev().find(|(_, power)| *power <= exponent)?;
    let scale = 10u128.checked_pow(u32::try_from(exponent - power).ok()?)?;
    Some(format!("{sign}{}{unit}", amount.checked_mul(scale)?))
}

fn in_binary(mut bytes: u128) -> String {
    let mut unit = "";
    for next in BINARY {
        if bytes == 0 || !bytes.is_multiple_of(1024) {
            break;
        }
        bytes /= 1024;
        unit = next;
    }
    format!("{bytes}{unit}")
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn a_quantity_is_written_in_one_way() {
        let made = ["1", "1000m", "0.5", "1024Mi", "128Mi", "0.1Gi", "1e3", "1500m", "100", "x", ""];
        let made: Vec<_> = made.into_iter().map(|text| canonical(text).unwrap_or_else(|| "wrong".into())).collect();
        assert_eq!(made, ["1", "1", "500m", "1Gi", "128Mi", "107374183", "1k", "1500m", "100", "wrong", "wrong"]);
    }
}
