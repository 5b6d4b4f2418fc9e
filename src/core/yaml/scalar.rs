//! What a scalar means: the rules of `go-yaml` 2 (`resolve.go`), which `kubectl` reads with.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Number;

use super::Data;

/// The tags that mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    None,
    Text,
    Bool,
    Int,
    Float,
    Null,
    Binary,
    /// Anything else: kubectl reads the scalar as a text.
    Other,
}

impl Tag {
    pub(super) fn from_core(suffix: &str) -> Self {
        match suffix {
            "str" | "timestamp" => Self::Text,
            "bool" => Self::Bool,
            "int" => Self::Int,
            "float" => Self::Float,
            "null" => Self::Null,
            "binary" => Self::Binary,
            _ => Self::Other,
        }
    }
}

/// Resolves a scalar. `plain` is false for quoted and block scalars: without a tag they are texts.
///
/// # Errors
///
/// Says what is wrong: a value that its tag does not allow, or a number that JSON cannot say.
pub(super) fn resolve(text: &str, plain: bool, tag: Tag) -> Result<Data, String> {
    match tag {
        Tag::None if plain => implicit(text),
        Tag::None | Tag::Text | Tag::Other => Ok(Data::Text(text.to_owned())),
        Tag::Binary => {
            let packed: String = text.split_ascii_whitespace().collect();
            let bytes = STANDARD.decode(packed).map_err(|_| "`!!binary` without valid base64".to_owned())?;
            String::from_utf8(bytes).map(Data::Text).map_err(|_| "`!!binary` that is no UTF-8 text".to_owned())
        }
        Tag::Bool | Tag::Int | Tag::Float | Tag::Null => {
            let data = implicit(text)?;
            let fits = match (&data, tag) {
                (Data::Bool(_), Tag::Bool) | (Data::Null, Tag::Null) | (Data::Number(_), Tag::Float) => true,
                (Data::Number(number), Tag::Int) => !number.is_f64(),
                _ => false,
            };
            if fits { Ok(data) } else { Err(format!("`{text}` is not what its tag says")) }
        }
    }
}

/// Resolves a plain scalar by its first character, as `go-yaml` does.
fn implicit(text: &str) -> Result<Data, String> {
    let word = match text {
        "" | "~" | "null" | "Null" | "NULL" => Some(Data::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(Data::Bool(true)),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(Data::Bool(false)),
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
        | "-.INF" => return Err(format!("`{text}` is no number that Kubernetes can take")),
        _ => None,
    };
    if let Some(word) = word {
        return Ok(word);
    }
    let number = match text.as_bytes().first() {
        Some(b'.') => text.parse().ok().and_then(from_f64),
        Some(b'0'..=b'9' | b'+' | b'-') if !is_date(text) => number(&text.replace('_', "")),
        _ => None,
    };
    Ok(number.map_or_else(|| Data::Text(text.to_owned()), Data::Number))
}

/// Dates stay texts; told apart only so that `2026-11-21` is not tried as a number. `go-yaml` checks more, to no other
/// effect: what starts like a date is no number.
fn is_date(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    digits == 4 && text.as_bytes().get(4) == Some(&b'-')
}

/// Reads a number as Go's `ParseInt(text, 0, 64)`, `ParseUint` and then `ParseFloat` of a decimal do.
fn number(text: &str) -> Option<Number> {
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    let prefix = digits.get(..2).unwrap_or_default();
    let (radix, digits) = match prefix {
        "0x" | "0X" => (16, &digits[2..]),
        "0o" | "0O" => (8, &digits[2..]),
        "0b" | "0B" => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    // `from_str_radix` takes a sign of its own; Go does not.
    let magnitude = (!digits.starts_with(['+', '-'])).then(|| u64::from_str_radix(digits, radix).ok()).flatten();
    let integer = match magnitude {
        Some(magnitude) if sign < 0 => i64::try_from(-i128::from(magnitude)).ok().map(Number::from),
        // Go reads numbers over i64 as unsigned ones only without a sign; with one they become floats below.
        Some(magnitude) if text.starts_with('+') => i64::try_from(magnitude).ok().map(Number::from),
        Some(magnitude) => Some(Number::from(magnitude)),
        None => None,
    };
    integer.or_else(|| is_decimal(text).then(|| text.parse().ok().and_then(from_f64)).flatten())
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`
fn is_decimal(text: &str) -> bool {
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (rest, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    mantissa && exponent.is_none_or(digits)
}

/// Turns a float into JSON as Go does: without a fraction where it has none. `None` for what overflows: kubectl keeps
/// that as a text.
fn from_f64(value: f64) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[allow(clippy::cast_possible_truncation)]
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

/// Turns a key into the text that kubectl makes of it: `no` is `false`, `0644` is `420`.
///
/// # Errors
///
/// Says what cannot be a key.
pub(super) fn key(data: Data) -> Result<String, String> {
    match data {
        Data::Text(text) => Ok(text),
        Data::Bool(value) => Ok(value.to_string()),
        Data::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && !(1e-4..1e6).contains(&float.abs()) => {
                Err("a number like this cannot be a key: put it in quotes".to_owned())
            }
            _ => Ok(number.to_string()),
        },
        Data::Null => Err("nothing cannot be a key: put it in quotes".to_owned()),
        Data::List(_) | Data::Map(_) => Err("a key must be a text, not a list or a map".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::core::yaml::{Node, Span};

    fn read(text: &str) -> Value {
        let data = resolve(text, true, Tag::None).unwrap_or(Data::Text("an error".into()));
        Node { span: Span::default(), data }.into_value()
    }

    /// What `kubectl annotate --local -o json` (1.32) printed for each.
    #[test]
    fn fault_55_scalars_mean_what_kubectl_makes_of_them() {
        let table = [
            ("no", json!(false)),
            ("No", json!(false)),
            ("nO", json!("nO")),
            ("y", json!(true)),
            ("yes", json!(true)),
            ("on", json!(true)),
            ("OFF", json!(false)),
            ("TRUE", json!(true)),
            ("tRUE", json!("tRUE")),
            ("~", Value::Null),
            ("Null", Value::Null),
            ("nULL", json!("nULL")),
            ("0644", json!(420)),
            ("0o7", json!(7)),
            ("0o8", json!("0o8")),
            ("0x1F", json!(31)),
            ("0b101", json!(5)),
            ("0b12", json!("0b12")),
            ("0x", json!("0x")),
            ("08", json!(8)),
            ("00", json!(0)),
            ("0_7", json!(7)),
            ("0x_1F", json!(31)),
            ("1_000", json!(1000)),
            ("1_000.5", json!(1000.5)),
            ("_1", json!("_1")),
            ("1_", json!(1)),
            ("1__0", json!(10)),
            ("+1", json!(1)),
            ("-1", json!(-1)),
            ("-0", json!(0)),
            ("-0644", json!(-420)),
            ("-0x1F", json!(-31)),
            ("1e3", json!(1000)),
            ("1E3", json!(1000)),
            ("12e03", json!(12000)),
            ("1.", json!(1)),
            ("1.0", json!(1)),
            (".5", json!(0.5)),
            ("+.5", json!(0.5)),
            (".5e1", json!(5)),
            ("1.5e-3", json!(0.0015)),
            ("0.10", json!(0.1)),
            ("1e-7", json!(1e-7)),
            ("1e21", json!(1e21)),
            ("123456789012345678", json!(123_456_789_012_345_678_i64)),
            ("18446744073709551615", json!(u64::MAX)),
            ("123456789012345678901234567890", json!(1.234_567_890_123_456_8e29)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("1e400", json!("1e400")),
            ("0.1e-400", json!(0)),
            ("1:30", json!("1:30")),
            ("2026-11-21", json!("2026-11-21")),
            ("2026-11-21T12:00:00Z", json!("2026-11-21T12:00:00Z")),
            (".", json!(".")),
            (".e1", json!(".e1")),
            ("+", json!("+")),
            ("-a", json!("-a")),
            ("1a", json!("1a")),
            ("--1", json!("--1")),
            ("0x-1", json!("0x-1")),
            ("=", json!("=")),
            (".inf", json!("an error")),
            (".NaN", json!("an error")),
        ];
        let wrong: Vec<_> = table
            .into_iter()
            .map(|(text, expected)| (text, read(text), expected))
            .filter(|(_, got, expected)| got != expected)
            .collect();
        assert!(wrong.is_empty(), "(text, got, kubectl): {wrong:#?}");
    }

    #[test]
    fn quotes_and_tags_say_what_is_meant() {
        let table = [
            ("no", false, Tag::None, Some(json!("no"))),
            ("5", true, Tag::Text, Some(json!("5"))),
            ("7", false, Tag::Int, Some(json!(7))),
            ("5", true, Tag::Float, Some(json!(5))),
            ("yes", false, Tag::Bool, Some(json!(true))),
            ("bar", true, Tag::Other, Some(json!("bar"))),
            ("aGVsbG8=", true, Tag::Binary, Some(json!("hello"))),
            ("x", true, Tag::Null, None),
            ("1.5", true, Tag::Int, None),
            ("%", true, Tag::Binary, None),
        ];
        for (text, plain, tag, expected) in table {
            let got = resolve(text, plain, tag).ok().map(|data| Node { span: Span::default(), data }.into_value());
            assert_eq!(got, expected, "{tag:?} {text}");
        }
    }

    #[test]
    fn keys_become_texts() {
        let table =
            [("no", Some("false")), ("0644", Some("420")), ("1e3", Some("1000")), (".5", Some("0.5")), ("1e21", None)];
        for (text, expected) in table {
            let got = implicit(text).and_then(key).ok();
            assert_eq!(got.as_deref(), expected, "{text}");
        }
        assert!(implicit("~").and_then(key).is_err());
    }
}
