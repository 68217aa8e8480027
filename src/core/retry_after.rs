//! How long a service asks to be left alone: `retry-after-ms` and `retry-after`.

use std::time::Duration;

/// The longest time that is believed: a day.
pub const MAX: Duration = Duration::from_secs(86_400);

/// How long to wait before the service is asked again, at most [`MAX`]; zero for a date that has
/// passed. `header` gives the value of a response header, and `now` is the time since the Unix epoch.
///
/// `retry-after-ms` is in milliseconds. It is no standard, but says more than `retry-after`, which is
/// in seconds, or a date (RFC 9110, section 10.2.3). Some services send either with a fraction.
/// `None` where neither is there, or neither is one of these.
#[must_use]
pub fn read(header: impl Fn(&str) -> Option<Vec<u8>>, now: Duration) -> Option<Duration> {
    header("retry-after-ms")
        .and_then(|value| decimal(value.trim_ascii(), 1_000_000))
        .or_else(|| after(header("retry-after")?.trim_ascii(), now))
}

fn after(value: &[u8], now: Duration) -> Option<Duration> {
    decimal(value, 1_000_000_000).or_else(|| {
        let wait = since_1970(value)?.saturating_sub(now);
        Some(wait.min(MAX))
    })
}

/// Reads `12` or `1.5` of a unit of so many nanoseconds. The reader of the standard library would add
/// 18 kB to the Wasm file, and it takes `inf` and `1e9` for numbers too.
fn decimal(value: &[u8], unit: u64) -> Option<Duration> {
    let dot = memchr::memchr(b'.', value);
    let (whole, fraction) = match dot.and_then(|at| value.split_at_checked(at)) {
        Some((whole, fraction)) => (whole, fraction.strip_prefix(b".")?),
        None => (value, &b"0"[..]),
    };
    let (fraction, _) = digits(fraction)?.fold((0, unit / 10), |(sum, unit), digit| {
        (sum + digit * unit, unit / 10)
    });
    let nanos = number(whole)?.saturating_mul(unit).saturating_add(fraction);
    Some(Duration::from_nanos(nanos).min(MAX))
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = digits(value)?;
    Some(digits.fold(0, |sum: u64, digit| {
        sum.saturating_mul(10).saturating_add(digit)
    }))
}

/// `None` where there are none, or something else is among them.
fn digits(value: &[u8]) -> Option<impl Iterator<Item = u64>> {
    let all = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    all.then(|| value.iter().map(|byte| u64::from(byte - b'0')))
}

const MONTHS: [[u8; 3]; 12] = [
    *b"Jan", *b"Feb", *b"Mar", *b"Apr", *b"May", *b"Jun", *b"Jul", *b"Aug", *b"Sep", *b"Oct",
    *b"Nov", *b"Dec",
];

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT`. The two older forms of a date are not sent any more (RFC
/// 9110, section 5.6.7); the crate `httpdate`, which reads them too, adds 10 kB to the Wasm file.
#[rustfmt::skip]
fn since_1970(date: &[u8]) -> Option<Duration> {
    let [
        _, _, _, b',', b' ',
        d1, d2, b' ', m1, m2, m3, b' ', y1, y2, y3, y4, b' ',
        h1, h2, b':', n1, n2, b':', s1, s2, b' ', b'G', b'M', b'T',
    ] = *date else {
        return None;
    };
    let month = MONTHS.iter().position(|name| *name == [m1, m2, m3])?;
    let days = days_since_1970(number(&[y1, y2, y3, y4])?, month, number(&[d1, d2])?)?;
    let [hour, minute, second] = [number(&[h1, h2])?, number(&[n1, n2])?, number(&[s1, s2])?];
    // 60 is a leap second.
    let is_time = hour < 24 && minute < 60 && second <= 60;
    is_time.then(|| Duration::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second))
}

/// In the Gregorian calendar; `month` is 0 for January. `None` before 1970.
fn days_since_1970(year: u64, month: usize, day: u64) -> Option<u64> {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    if year < 1970 || !(1..=31).contains(&day) {
        return None;
    }
    // The leap day of a year comes after its February.
    let past = if month < 2 { year - 1 } else { year };
    let leap_days = past / 4 - past / 100 + past / 400 - 477;
    Some((year - 1970) * 365 + leap_days + BEFORE.get(month)? + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-02-29 12:00:00.5 UTC.
    const NOW: Duration = Duration::from_millis(1_709_208_000_500);

    fn wait(headers: &[(&str, &str)]) -> Option<f64> {
        let header = |name: &str| {
            let mut headers = headers.iter();
            let (_, value) = headers.find(|(own, _)| *own == name)?;
            Some(value.as_bytes().to_vec())
        };
        let wait = read(header, NOW)?;
        Some(wait.as_secs_f64())
    }

    #[test]
    fn retry_after_is_in_seconds_or_a_date() {
        let table = [
            ("0", Some(0.0)),
            ("2", Some(2.0)),
            (" 007\t", Some(7.0)),
            ("1.5", Some(1.5)),
            ("0.0000000001", Some(0.0)),
            ("3.1234567890123", Some(3.123_456_789)),
            ("86401", Some(86_400.0)),
            ("99999999999999999999999999", Some(86_400.0)),
            ("Thu, 29 Feb 2024 12:00:10 GMT", Some(9.5)),
            ("Thu, 29 Feb 2024 12:00:60 GMT", Some(59.5)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(43_199.5)),
            ("Sat, 29 Feb 2025 12:00:00 GMT", Some(86_400.0)),
            ("Thu, 29 Feb 2024 12:00:00 GMT", Some(0.0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0.0)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0.0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(86_400.0)),
        ];
        for (value, expected) in table {
            assert_eq!(wait(&[("retry-after", value)]), expected, "{value:?}");
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        let table = [
            "",
            " ",
            "-1",
            "+1",
            "NaN",
            "inf",
            "1e3",
            "1.",
            ".5",
            ".",
            "1.5.0",
            "1,5",
            "1s",
            "1 2",
            "soon",
            "\u{0661}",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            "Thu, 00 Feb 2024 12:00:10 GMT",
            "Thu, 32 Jan 2024 12:00:10 GMT",
            "Thu, 29 feb 2024 12:00:10 GMT",
            "Thu, 29 Feb 2024 24:00:10 GMT",
            "Thu, 29 Feb 2024 12:60:10 GMT",
            "Thu, 29 Feb 2024 12:00:61 GMT",
            "Thu, 29 Feb 2024 12:00:-1 GMT",
            "Thu, 29 Feb 2024 12:00:10 UTC",
            "Thu, 29 Feb 2024 12:00:10",
            "Thursday, 29-Feb-24 12:00:10 GMT",
            "Thu Feb 29 12:00:10 2024",
        ];
        for value in table {
            assert_eq!(wait(&[("retry-after", value)]), None, "{value:?}");
        }
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn milliseconds_come_first() {
        let table = [
            ("250", Some(0.25)),
            ("0.5", Some(0.000_5)),
            ("1234.567891", Some(1.234_567_891)),
            ("99999999999", Some(86_400.0)),
            ("-5", Some(2.0)),
            ("Thu, 29 Feb 2024 12:00:10 GMT", Some(2.0)),
            ("", Some(2.0)),
        ];
        for (value, expected) in table {
            let headers = [("retry-after", "2"), ("retry-after-ms", value)];
            assert_eq!(wait(&headers), expected, "{value:?}");
        }
        assert_eq!(wait(&[("retry-after-ms", "x")]), None);
    }

    /// The days of a cycle of 400 years are counted one by one.
    #[test]
    fn every_day_follows_the_one_before() {
        let mut days = 0;
        for year in 1970..2400 {
            let leaps = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            for (month, name) in (0..).zip(MONTHS) {
                let last = match month {
                    1 => 28 + u64::from(leaps),
                    3 | 5 | 8 | 10 => 30,
                    _ => 31,
                };
                for day in 1..=last {
                    let month = std::str::from_utf8(&name).unwrap();
                    let date = format!("Xxx, {day:02} {month} {year} 00:00:01 GMT");
                    let expected = Duration::from_secs(days * 86_400 + 1);
                    assert_eq!(since_1970(date.as_bytes()), Some(expected), "{date}");
                    days += 1;
                }
            }
        }
    }
}
