use serde_json::json;

use crate::{Kind, Scenario, prompt::Prompt, reply::Reply, rulebook::Rulebook};

const CACHED: &str = "
time_to_first_token: 100ms
prompt_tokens_per_second: 1000
prompt_cache: {speedup: 4}
";

fn book(yaml: &str) -> Rulebook {
    Rulebook::compile(&Scenario::parse(yaml).unwrap()).unwrap()
}

fn prompt(model: &str, texts: &[&str]) -> Prompt {
    let messages = texts.iter().map(|text| json!({"role": "user", "content": text})).collect::<Vec<_>>();
    let body = json!({"model": model, "messages": messages});
    Prompt::parse(Kind::OpenAi, body.to_string().as_bytes()).unwrap()
}

fn ask(book: &Rulebook, texts: &[&str]) -> Reply {
    book.answer(&prompt("m", texts)).unwrap()
}

/// Uncached tokens cost a millisecond each, cached ones a quarter, on top of 100 ms.
fn millis(reply: &Reply) -> u128 {
    reply.pace.first_token.as_millis()
}

#[tokio::test(start_paused = true)]
async fn the_longest_common_prefix_costs_less_in_steps_of_128_tokens() {
    let book = book(CACHED);
    let long = "x".repeat(4 * 1200);
    let first = ask(&book, &[&long]);
    assert_eq!((0, 1300), (first.usage.cached, millis(&first)));
    tokio::time::advance(first.pace.first_token).await;
    // 1,200 tokens in common, of which 9 * 128 = 1,152 count.
    let second = ask(&book, &[&long, &"y".repeat(400)]);
    assert_eq!((1300, 1152), (second.usage.prompt, second.usage.cached));
    assert_eq!(100 + (1300 - 1152) + 1152 / 4, millis(&second));
}

#[tokio::test(start_paused = true)]
async fn a_prefix_is_there_once_the_answer_has_begun() {
    let book = book(CACHED);
    let long = "x".repeat(4 * 2000);
    let first = ask(&book, &[&long]);
    assert_eq!(0, ask(&book, &[&long, "b"]).usage.cached);
    tokio::time::advance(first.pace.first_token).await;
    assert_eq!(1920, ask(&book, &[&long, "c"]).usage.cached);
    book.reset();
    assert_eq!(0, ask(&book, &[&long, "c"]).usage.cached);
}

#[tokio::test(start_paused = true)]
async fn short_other_and_differently_cut_prefixes_do_not_count() {
    let book = book(CACHED);
    let long = "x".repeat(4 * 1100);
    ask(&book, &[&long]);
    ask(&book, &[&"z".repeat(4 * 1000)]);
    tokio::time::advance(std::time::Duration::from_secs(5)).await;
    assert_eq!(0, ask(&book, &[&"z".repeat(4 * 1000), "short"]).usage.cached);
    assert_eq!(0, book.answer(&prompt("other", &[&long])).unwrap().usage.cached);
    assert_eq!(0, ask(&book, &["y", &long]).usage.cached);
    assert_eq!(0, ask(&book, &[&long[..2000], &long[2000..]]).usage.cached);
    assert_eq!(1024, ask(&book, &[&long]).usage.cached);
}

#[test]
fn a_model_has_its_own_speed_and_a_rule_goes_before_it() {
    let book = book(
        "
tokens_per_second: 10
speeds:
  - {model: fast*, time_to_first_token: 10ms, prompt_tokens_per_second: 2000, tokens_per_second: 30}
rules: [{when: {last_user: own}, respond: {text: x, tokens_per_second: 50, prompt_tokens_per_second: 1000}}]
",
    );
    let pace = |model: &str, text: &str| {
        let pace = book.answer(&prompt(model, &[text])).unwrap().pace;
        (pace.first_token.as_millis(), pace.tokens_per_second)
    };
    assert_eq!((210, Some(30.0)), pace("fast-1", &"a".repeat(1600)));
    assert_eq!((0, Some(10.0)), pace("best", &"a".repeat(1600)));
    assert_eq!((11, Some(50.0)), pace("fast-1", "own."));
}

#[test]
fn bad_numbers_are_told_with_their_place() {
    let error = |yaml: &str| Scenario::parse(yaml).unwrap_err().to_string();
    assert!(error("prompt_cache: {speedup: 0.5}").contains("prompt_cache.speedup"));
    assert!(error("prompt_cache: {speedup: 2, step_tokens: 0}").contains("prompt_cache.step_tokens"));
    assert!(error("speeds: [{model: m, tokens_per_second: 0}]").contains("speeds[0].tokens_per_second"));
    assert!(error("prompt_tokens_per_second: 0").contains("at prompt_tokens_per_second"));
}
