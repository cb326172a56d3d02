//! Durations, memory and CPUs, as Go's `time`, docker/go-units and docker/cli read them.

/// `time.ParseDuration`: `1h30m`, `1.5s`, `-5ms`, `0`; in nanoseconds.
pub(super) fn go_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(unit_at)?;
        let next = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(next)?;
        let nanos: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(scaled(number, nanos)?)?;
        rest = tail;
    }
    i64::try_from(sign * total).ok()
}

/// A decimal number times `unit`, cut off to a whole.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // More digits than nanoseconds of an hour have change nothing.
    let fraction = fraction.get(..fraction.len().min(15))?;
    let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    whole.checked_mul(unit)?.checked_add(part * unit / scale)
}

/// `units.RAMInBytes`: `64M`, `1.5g`, `10KiB`, `100`; powers of 1024.
pub(super) fn ram_bytes(text: &str) -> Option<i64> {
    let number_end = text.rfind(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' '))?;
    let (number, suffix) = text.split_at_checked(number_end + 1)?;
    let number = number.strip_suffix(' ').unwrap_or(number);
    let suffix = suffix.to_ascii_lowercase();
    let power = match suffix.trim_end_matches('b').trim_end_matches('i') {
        "" if suffix != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let tail = suffix.get(usize::from(power > 0)..)?;
    if !(matches!(tail, "" | "b") || (power > 0 && tail == "ib")) || number.contains(['_', 'n', 'i']) {
        return None;
    }
    let size = number.parse::<f64>().ok()? * 1024_f64.powi(power);
    // Go cuts off the fraction too; beyond i64 there is no such memory.
    #[allow(clippy::cast_possible_truncation)]
    (0.0..9.2e18).contains(&size).then_some(size as i64)
}

/// A decimal number, or `a/b`, times 10⁹, which must come out whole.
pub(super) fn nano_cpus(text: &str) -> Option<i64> {
    let (text, divisor) = match text.split_once('/') {
        Some((text, divisor)) => (text, divisor.parse::<u32>().ok().filter(|&divisor| divisor > 0)?),
        None => (text, 1),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().filter(|e| e.abs() < 20)?),
        None => (text, 0),
    };
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || all.len() > 20 || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let power = 9 + exponent - i32::try_from(fraction.len()).ok()?;
    let mut nanos = sign * all.parse::<i128>().ok()?;
    let scale = 10_i128.checked_pow(power.unsigned_abs())?;
    let mut below = i128::from(divisor);
    if power >= 0 {
        nanos = nanos.checked_mul(scale)?;
    } else {
        below = below.checked_mul(scale)?;
    }
    if nanos % below == 0 { i64::try_from(nanos / below).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("90s", Some(90_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("1us", Some(1_000)),
            ("1h1m1.5s3ms", Some(3_661_503_000_000)),
            ("-5s", Some(-5_000_000_000)),
            (".5s", Some(500_000_000)),
            ("0", Some(0)),
            ("", None),
            ("-", None),
            ("90", None),
            ("1m 30s", None),
            ("s", None),
            ("1.2.3s", None),
            ("1d", None),
            ("9999999999h", None),
        ] {
            assert_eq!(go_duration(text), nanos, "{text:?}");
        }
    }

    #[test]
    fn memory_is_read_as_docker_reads_it() {
        for (text, bytes) in [
            ("50M", Some(52_428_800)),
            ("1.5g", Some(1_610_612_736)),
            ("100", Some(100)),
            ("10KiB", Some(10_240)),
            ("1 g", Some(1 << 30)),
            ("1kb", Some(1024)),
            ("1.5b", Some(1)),
            ("1TB", Some(1 << 40)),
            ("5x", None),
            ("-5", None),
            ("", None),
            ("5ib", None),
            ("5kbb", None),
            ("1_000", None),
        ] {
            assert_eq!(ram_bytes(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn cpus_are_read_exactly() {
        for (text, cpus) in [
            ("0.5", Some(500_000_000)),
            (".5", Some(500_000_000)),
            ("1", Some(1_000_000_000)),
            ("1e1", Some(10_000_000_000)),
            ("1/2", Some(500_000_000)),
            ("-1", Some(-1_000_000_000)),
            ("0.123456789012", None),
            ("1/3", None),
            ("abc", None),
            ("1.", Some(1_000_000_000)),
            (".", None),
        ] {
            assert_eq!(nano_cpus(text), cpus, "{text:?}");
        }
    }
}
