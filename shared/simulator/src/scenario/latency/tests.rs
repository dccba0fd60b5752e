use super::*;
use crate::{draw::Draw, scenario::Scenario};

fn latency(yaml: &str) -> Latency {
    let text = format!("time_to_first_token: {yaml}");
    Scenario::parse(&text).unwrap().time_to_first_token
}

/// Sorted draws in milliseconds, one for each of 20,000 contents.
fn draws(latency: Latency) -> Vec<f64> {
    let mut draws: Vec<f64> = (0..20_000)
        .map(|content| {
            let mut stream = Draw::new(7, content, 1).stream("latency");
            latency.draw(&mut stream).as_secs_f64() * 1e3
        })
        .collect();
    draws.sort_by(f64::total_cmp);
    draws
}

#[test]
fn the_same_call_draws_the_same_time() {
    let latency = latency("{log_normal: {median: 600ms, sigma: 0.5}, straggler: {p: 0.1, factor: 4}}");
    let draw = |content| latency.draw(&mut Draw::new(1, content, 1).stream("latency"));
    assert_eq!(draw(5), draw(5));
    assert_ne!(draw(5), draw(6));
}

#[test]
fn fixed_and_uniform_stay_in_their_bounds() {
    assert_eq!(Latency::fixed(Duration::from_millis(300)), latency("300ms"));
    assert_eq!(latency("{fixed: 1.5s}"), latency("1500ms"));
    let draws = draws(latency("{uniform: {min: 100ms, max: 200ms}}"));
    assert!(draws[0] >= 100.0 && draws[19_999] <= 200.0);
    assert!((draws[10_000] - 150.0).abs() < 3.0);
}

#[test]
fn log_normal_has_its_median_mean_and_tail() {
    let by_p99 = draws(latency("{log_normal: {median: 100ms, p99: 400ms}}"));
    assert!((by_p99[10_000] - 100.0).abs() < 3.0);
    assert!((by_p99[19_800] - 400.0).abs() < 30.0);
    let by_mean = draws(latency("{log_normal: {mean: 100ms, sigma: 0.5}}"));
    let mean = by_mean.iter().sum::<f64>() / by_mean.len() as f64;
    assert!((mean - 100.0).abs() < 2.0);
}

#[test]
fn stragglers_come_as_often_as_told_and_the_cap_holds() {
    let slow = draws(latency("{fixed: 10ms, straggler: {p: 0.05, factor: 10}}"));
    let share = slow.iter().filter(|ms| **ms > 50.0).count() as f64 / slow.len() as f64;
    assert!((share - 0.05).abs() < 0.01);
    let capped = draws(latency("{fixed: 10ms, straggler: {p: 0.05, factor: 10}, max: 40ms}"));
    assert_eq!(40.0, capped[19_999]);
}

#[test]
fn bad_numbers_are_told() {
    let problem = |yaml: &str| {
        let error = Scenario::parse(&format!("time_to_first_token: {yaml}")).unwrap_err();
        error.to_string()
    };
    assert!(problem("300").contains("not a duration"));
    assert!(problem("fast").contains("not a duration"));
    assert!(problem("{fixed: 1s, uniform: {min: 0, max: 1s}}").contains("exactly one"));
    assert!(problem("{uniform: {min: 2s, max: 1s}}").contains("uniform.min is over"));
    assert!(problem("{log_normal: {median: 1s}}").contains("either sigma or p99"));
    assert!(problem("{log_normal: {sigma: 1.0}}").contains("either median or mean"));
    assert!(problem("{fixed: 1s, straggler: {p: 2, factor: 3}}").contains("straggler.p"));
}
