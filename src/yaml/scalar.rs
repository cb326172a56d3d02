//! Plain scalars: what Go's yaml.v3 makes of them, and how Go prints that.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use super::Value;

/// What a plain (unquoted) scalar means.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number_like = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    if !number_like {
        return Value::String(text.to_owned());
    }
    if timestamp(text).is_some() {
        return Value::Timestamp(text.to_owned());
    }
    // yaml.v3 ignores underscores everywhere, but not in a number that begins with its point.
    let digits = if text.starts_with('.') { text.to_owned() } else { text.replace('_', "") };
    integer(&digits)
        .map(Value::Int)
        .or_else(|| float(&digits).map(Value::Float))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// An integer as Go's `ParseInt` with base 0 reads it, in the range of i64 or, without a sign, of u64.
pub(super) fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, digits.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, digits.get(2..)?),
        [b'0', _, ..] => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let value = sign * i128::from(u64::from_str_radix(digits, radix).ok()?);
    let signed = text.starts_with(['+', '-']);
    let in_range = value >= i128::from(i64::MIN) && (!signed || value <= i128::from(i64::MAX));
    in_range.then_some(value)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, and finite.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_fits = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let exponent_fits = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    if !mantissa_fits || !exponent_fits {
        return None;
    }
    text.parse().ok().filter(|f: &f64| f.is_finite())
}

/// A float as Go's `%v` prints it: the shortest digits, with an exponent below 10⁻⁴ and from 10²¹.
pub(super) fn go_float(f: f64) -> String {
    if f.is_nan() {
        return "NaN".to_owned();
    }
    if f.is_infinite() {
        return if f > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if f != 0.0 && (f.abs() < 1e-4 || f.abs() >= 1e21) {
        let text = format!("{f:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    f.to_string()
}

/// A timestamp as Go's `time.Time` prints itself.
pub(super) fn go_timestamp(text: &str) -> Option<String> {
    let at = timestamp(text)?;
    let mut out = format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    if at.nanosecond() > 0 {
        let fraction = format!("{:09}", at.nanosecond());
        out.push('.');
        out.push_str(fraction.trim_end_matches('0'));
    }
    let (hours, minutes, _) = at.offset().as_hms();
    if at.offset().is_utc() {
        out.push_str(" +0000 UTC");
    } else {
        let sign = if at.offset().is_negative() { '-' } else { '+' };
        let zone = format!("{sign}{:02}{:02}", hours.abs(), minutes.abs());
        out = format!("{out} {zone} {zone}");
    }
    Some(out)
}

/// yaml.v3's timestamps: `2006-1-2`, `2006-1-2 15:4:5.9`, `2006-1-2T15:4:5.9Z` or with an offset.
fn timestamp(text: &str) -> Option<OffsetDateTime> {
    let (date, rest) = text.split_at_checked(text.find(['T', 't', ' ']).unwrap_or(text.len()))?;
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 {
        return None;
    }
    let month = Month::try_from(u8::try_from(small(month)?).ok()?).ok()?;
    let day = u8::try_from(small(day)?).ok()?;
    let year = i32::try_from(all_digits(year)?).ok()?;
    let date = Date::from_calendar_date(year, month, day).ok()?;
    let Some(separator) = rest.chars().next() else {
        return Some(date.midnight().assume_utc());
    };
    let clock = rest.get(1..)?;
    if separator == ' ' {
        return Some(PrimitiveDateTime::new(date, time_of_day(clock)?).assume_utc());
    }
    let zone_at = clock.find(['Z', '+', '-'])?;
    let (clock, zone) = clock.split_at_checked(zone_at)?;
    Some(PrimitiveDateTime::new(date, time_of_day(clock)?).assume_offset(offset(zone)?))
}

fn time_of_day(clock: &str) -> Option<Time> {
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':');
    let mut next = || u8::try_from(small(parts.next()?)?).ok();
    let (hour, minute, second) = (next()?, next()?, next()?);
    if parts.next().is_some() || fraction.len() > 9 {
        return None;
    }
    let nanos = all_digits(fraction)? * 10_u32.pow(u32::try_from(9 - fraction.len()).ok()?);
    Time::from_hms_nano(hour, minute, second, nanos).ok()
}

fn offset(zone: &str) -> Option<UtcOffset> {
    if zone == "Z" {
        return Some(UtcOffset::UTC);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (i8::try_from(all_digits(hours)?).ok()?, i8::try_from(all_digits(minutes)?).ok()?);
    UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()
}

/// One or two digits.
fn small(text: &str) -> Option<u32> {
    if text.len() > 2 { None } else { all_digits(text) }
}

fn all_digits(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_yaml_v3_makes_of_them() {
        let int = |i: i128| Value::Int(i);
        let float = Value::Float;
        let text = |s: &str| Value::String(s.to_owned());
        for (source, expected) in [
            ("0644", int(420)),
            ("0o644", int(420)),
            ("-0o10", int(-8)),
            ("0x1F", int(31)),
            ("0b101", int(5)),
            ("1_000", int(1000)),
            ("+12", int(12)),
            ("-12", int(-12)),
            ("0", int(0)),
            ("18446744073709551615", int(i128::from(u64::MAX))),
            ("-9223372036854775808", int(i128::from(i64::MIN))),
            ("-9223372036854775809", float(-9_223_372_036_854_775_809.0)),
            ("08", float(8.0)),
            ("1.50", float(1.5)),
            ("1e3", float(1000.0)),
            (".5", float(0.5)),
            ("5.", float(5.0)),
            ("1e999", text("1e999")),
            (".inf", float(f64::INFINITY)),
            ("-.INF", float(f64::NEG_INFINITY)),
            ("~", Value::Null),
            ("", Value::Null),
            ("NULL", Value::Null),
            ("True", Value::Bool(true)),
            ("tRue", text("tRue")),
            ("yes", text("yes")),
            ("off", text("off")),
            ("y", text("y")),
            ("1.2.3", text("1.2.3")),
            ("12:30", text("12:30")),
            ("8080:80", text("8080:80")),
            ("0x", text("0x")),
            ("-", text("-")),
            (".", text(".")),
            ("++1", text("++1")),
            ("2001-12-14", Value::Timestamp("2001-12-14".to_owned())),
            ("2001-13-14", text("2001-13-14")),
            ("2001-12-14t21:59:43.10-05:00", Value::Timestamp("2001-12-14t21:59:43.10-05:00".to_owned())),
            ("192.168.0.1", text("192.168.0.1")),
        ] {
            assert_eq!(resolve(source), expected, "{source:?}");
        }
        assert!(matches!(resolve(".NaN"), Value::Float(f) if f.is_nan()));
    }

    #[test]
    fn floats_print_as_go_prints_them() {
        for (f, expected) in [
            (1.5, "1.5"),
            (1000.0, "1000"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.25e-7, "1.25e-07"),
            (-0.0, "-0"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(go_float(f), expected);
        }
    }

    #[test]
    fn dates_print_as_go_prints_them() {
        for (text, expected) in [
            ("2001-12-14", "2001-12-14 00:00:00 +0000 UTC"),
            ("2001-2-4 1:2:3.50", "2001-02-04 01:02:03.5 +0000 UTC"),
            ("2001-12-14T21:59:43Z", "2001-12-14 21:59:43 +0000 UTC"),
            ("2001-12-14t21:59:43.10-05:30", "2001-12-14 21:59:43.1 -0530 -0530"),
        ] {
            assert_eq!(go_timestamp(text).as_deref(), Some(expected));
        }
    }
}
