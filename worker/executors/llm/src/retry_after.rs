//! When a provider says "later", how much later.
//!
//! | header | form | sent by |
//! |---|---|---|
//! | `retry-after-ms` | milliseconds | OpenAI, Azure |
//! | `retry-after` | seconds or HTTP date (RFC 9110 §10.2.3) | everyone |
//! | `x-ratelimit-reset-requests`, `-tokens` | `88ms`, `6m0s`, `7.66` seconds | OpenAI, Groq |
//! | `x-ratelimit-reset` | seconds, or a Unix time in s or ms | OpenRouter and gateways |

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::HeaderMap;

/// No honest provider asks for more; a longer wait would only park a task for ever.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The wait that the headers ask for, at most a day. `now` is used for dates when the response
/// has no `Date` of its own, whose clock is the right one to compare with.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let get = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let now = get("date").and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);

    let wait = get("retry-after-ms")
        .and_then(|text| number(text, 1e-3))
        .or_else(|| get("retry-after").and_then(|text| seconds_or_date(text, now)))
        .or_else(|| exhausted_reset(&get))
        .or_else(|| get("x-ratelimit-reset").and_then(|text| reset(text, now)))?;
    Some(wait.min(LONGEST))
}

fn seconds_or_date(text: &str, now: SystemTime) -> Option<Duration> {
    number(text, 1.0).or_else(|| {
        let at = httpdate::parse_http_date(text).ok()?;
        Some(at.duration_since(now).unwrap_or_default())
    })
}

/// The longest reset of the quotas that are used up. Without that hint, of both: being too early
/// only earns another 429.
fn exhausted_reset<'a>(get: &impl Fn(&str) -> Option<&'a str>) -> Option<Duration> {
    let quota = |kind: &str| {
        let reset = go_duration(get(&format!("x-ratelimit-reset-{kind}"))?)?;
        let left = get(&format!("x-ratelimit-remaining-{kind}"));
        Some((left == Some("0"), reset))
    };
    let quotas = [quota("requests"), quota("tokens")];
    let quotas = quotas.iter().flatten();
    let used_up = quotas.clone().filter(|q| q.0).map(|q| q.1).max();
    used_up.or_else(|| quotas.map(|q| q.1).max())
}

fn reset(text: &str, now: SystemTime) -> Option<Duration> {
    let value: f64 = text.parse().ok()?;
    let unix = now.duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    // Unix times are told from spans by their size: 1e9 s is 2001, and no span is 30 years.
    let seconds = match value {
        v if v >= 1e12 => v / 1e3 - unix,
        v if v >= 1e9 => v - unix,
        v => v,
    };
    Duration::try_from_secs_f64(seconds.max(0.0)).ok()
}

fn number(text: &str, unit: f64) -> Option<Duration> {
    let value: f64 = text.parse().ok()?;
    if value.is_nan() {
        return None;
    }
    Some(Duration::try_from_secs_f64((value * unit).max(0.0)).unwrap_or(LONGEST))
}

/// `1h2m3.5s`, `88ms`, or bare seconds.
fn go_duration(text: &str) -> Option<Duration> {
    if let Some(plain) = number(text, 1.0) {
        return Some(plain);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value = &rest[..digits];
        let tail = &rest[digits..];
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let scale = match &tail[..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            _ => return None,
        };
        total = total.checked_add(number(value, scale)?)?;
        rest = &tail[unit..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn parse(headers: &[(&'static str, &'static str)]) -> Option<Duration> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        retry_after(&map, UNIX_EPOCH + Duration::from_secs(1_000_000_000))
    }

    #[test]
    fn every_form() {
        let ms = |v| Some(Duration::from_millis(v));
        assert_eq!(parse(&[("retry-after", "7")]), ms(7_000));
        assert_eq!(parse(&[("retry-after", "0.25")]), ms(250));
        assert_eq!(parse(&[("retry-after", "-3")]), ms(0));
        assert_eq!(parse(&[("retry-after-ms", "125"), ("retry-after", "9")]), ms(125));
        // 1e9 is Sun, 09 Sep 2001 01:46:40 GMT.
        let date = "Sun, 09 Sep 2001 01:46:50 GMT";
        assert_eq!(parse(&[("retry-after", date)]), ms(10_000));
        let server = "Sun, 09 Sep 2001 01:46:45 GMT";
        assert_eq!(parse(&[("retry-after", date), ("date", server)]), ms(5_000));
        let past = "Sun, 09 Sep 2001 01:00:00 GMT";
        assert_eq!(parse(&[("retry-after", past)]), ms(0));
        assert_eq!(
            parse(&[
                ("x-ratelimit-reset-requests", "6m0.5s"),
                ("x-ratelimit-remaining-requests", "0"),
                ("x-ratelimit-reset-tokens", "1h"),
                ("x-ratelimit-remaining-tokens", "12"),
            ]),
            ms(360_500)
        );
        assert_eq!(
            parse(&[("x-ratelimit-reset-requests", "88ms"), ("x-ratelimit-reset-tokens", "7.66")]),
            ms(7_660)
        );
        assert_eq!(parse(&[("x-ratelimit-reset", "2")]), ms(2_000));
        assert_eq!(parse(&[("x-ratelimit-reset", "1000000004000")]), ms(4_000));
        assert_eq!(parse(&[("x-ratelimit-reset", "1000000003")]), ms(3_000));
        assert_eq!(parse(&[("retry-after", "1e300")]), Some(LONGEST));
        for bad in ["soon", "NaN", ""] {
            assert_eq!(parse(&[("retry-after", bad)]), None, "{bad}");
        }
        assert_eq!(parse(&[("x-ratelimit-reset-tokens", "3x")]), None);
        assert_eq!(parse(&[]), None);
    }
}
