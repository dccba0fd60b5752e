//! How fast the simulated models and tools are, and where the numbers come from.
//!
//! | number | value | source |
//! |---|---|---|
//! | planning call | 1.88 s | LLMCompiler (arXiv 2312.04511), appendix E.1, Movie Recommendation (8 searches) |
//! | answering call | 1.62 s | the same |
//! | search | mean 0.61 s, slowest of 8 is 1.13 s on average | the same |
//! | prompt of such a call | 1,400 tokens | the same, table 2: 2,800 tokens in two calls |
//! | answer of the two calls together | 115 tokens | the same, table 2; here 73 for the plan and about 57 for the answer |
//! | prompt cache | time to first token -7 % at 1,000 tokens, -67 % at 150,000 | OpenAI, "Prompt Caching 201" |
//! | a call of ReAct | 1.97 s on HotpotQA, 1.73 s on Movie | the same, table 1: (7.12 s - 2 searches) / 3 calls, (20.47 s - 8 searches) / 9 calls |
//! | small model | three times faster per token | the suites' definition |
//!
//! From these follow, with a call's time = fixed + prompt tokens / reading + answer tokens / speaking:
//!
//! - **Speaking 60 tokens/s.** LLMCompiler's ReAct calls: 26 tokens in 1.73 s (Movie), 40 tokens in 1.97 s (HotpotQA).
//!   The slope is 62 tokens/s.
//! - **Reading and cache.** With u = the reading time of 1,000 tokens over the fixed time, and s = the share that a hit
//!   saves: u s / (1 + u) = 0.07 and 150 u s / (1 + 150 u) = 0.67 give u = 0.109 and s = 0.71, so that a cached token
//!   costs 3.5 times less time.
//! - **Fixed 0.57 s, reading 16,000 tokens/s.** 1.88 s - 73/60 s = 0.66 s until the first token of a call with a prompt
//!   of 1,400 tokens = fixed (1 + 1.4 u).
//! - **The small model** reads and speaks three times faster. Of the fixed time 0.15 s is network and front end, the
//!   same for both; the rest is the model's own queue and first pass, and takes a third. That gives 0.29 s and 180
//!   tokens/s, against published medians of 0.2 to 0.3 s and 140 to 180 tokens/s for small models, 0.8 s and 55
//!   tokens/s for the largest (aiyd.com/ai-model-speed-benchmark, March 2026).
//! - **Search**: log-normal; sigma 0.4833 makes the mean of the slowest of 8 1.13 / 0.61 of the mean (numerically).
//!
//! Tokens are the same for the same decision in every style. A call costs its name and arguments, whether native or as
//! a line of a plan (which adds its number); every react turn begins with [`THOUGHT_TOKENS`] of thought, however many
//! calls it makes; every answer has [`REASONING_TOKENS`] of reasoning, whoever is asked. A planner writes no thought: its
//! grammar has no place for one, as in the paper's counts. Models differ in speed only: whether a small model plans as
//! well is not what this measures.
//!
//! The thought is as long as makes a react turn take the published time of one. That is more tokens than the paper
//! counts (its ReAct calls are slower than their tokens explain: 26 tokens in 1.73 s); what is wanted here is the time.
//! The whole runs then come out as published, which nothing else was fitted to:
//!
//! | run | published (table 1) | here, from the means |
//! |---|---|---|
//! | ReAct, 2 searches, HotpotQA / (a) | 7.12 s | 6.6 s |
//! | ReAct, 8 searches, Movie / (b) | 20.47 s | 21.4 s |
//! | parallel calls, 2 searches | 4.42 s | 4.4 s |
//! | parallel calls, 8 searches | 7.42 s | 6.0 s |

use std::time::Duration;

use trireme_simulator::scenario::{Latency, LogNormal, PromptCache, Span, Speed, Spread};

/// The model that answers best; baselines use it for everything.
pub const BEST: &str = "best";
/// The model that is three times faster per token.
pub const SMALL: &str = "small";

/// Until the first token of an answer to an empty prompt.
pub const FIXED: Duration = Duration::from_millis(570);
/// The part of it that does not depend on the model.
pub const NETWORK: Duration = Duration::from_millis(150);
/// Prompt tokens read in a second.
pub const READING: f64 = 16_000.0;
/// Tokens said in a second.
pub const SPEAKING: f64 = 60.0;
/// How many times faster per token the small model is.
pub const SMALL_FACTOR: f64 = 3.0;
/// How many times less time a cached prompt token takes.
pub const CACHE_SPEEDUP: f64 = 3.5;

/// Mean of a search.
pub const SEARCH: Duration = Duration::from_millis(610);
/// Shape of its log-normal.
pub const SEARCH_SIGMA: f64 = 0.4833;
/// Mean of a record's lookup in suite (d). No measurement is published for one; taken to be as slow as a search, which
/// is the harder case: the twelve lookups alone bound what a schedule can gain.
pub const LOOKUP: Duration = SEARCH;
/// A computation: a service without a model behind it.
pub const COMPUTE: Duration = Duration::from_millis(50);
/// How many times slower the slow tool of suite (f) is.
pub const SLOW_FACTOR: u32 = 10;

/// Text before the calls of a react turn.
pub const THOUGHT_TOKENS: u64 = 62;
/// Text before an answer; the answer's own line makes it about 57.
pub const REASONING_TOKENS: u64 = 52;

/// The speeds of both models, `speed` times faster than calibrated.
pub fn models(speed: f64) -> Vec<Speed> {
    let model = |name: &str, fixed: Duration, factor: f64| Speed {
        model: name.to_owned(),
        time_to_first_token: Some(Latency::fixed(fixed.div_f64(speed))),
        prompt_tokens_per_second: Some(READING * factor * speed),
        tokens_per_second: Some(SPEAKING * factor * speed),
    };
    let small = NETWORK + (FIXED - NETWORK).div_f64(SMALL_FACTOR);
    vec![model(BEST, FIXED, 1.0), model(SMALL, small, SMALL_FACTOR)]
}

/// OpenAI's automatic cache.
pub fn cache() -> PromptCache {
    PromptCache { speedup: CACHE_SPEEDUP, min_tokens: 1024, step_tokens: 128 }
}

/// A search, `factor` times slower than usual.
pub fn search(speed: f64, factor: u32) -> Latency {
    log_normal(SEARCH * factor, speed)
}

/// A record's lookup.
pub fn lookup(speed: f64) -> Latency {
    log_normal(LOOKUP, speed)
}

fn log_normal(mean: Duration, speed: f64) -> Latency {
    let mean = Some(Span(mean.div_f64(speed)));
    let spread = LogNormal { median: None, mean, sigma: Some(SEARCH_SIGMA), p99: None };
    Latency { spread: Spread::LogNormal(spread), straggler: None, max: None }
}

/// A computation.
pub fn compute(speed: f64) -> Latency {
    Latency::fixed(COMPUTE.div_f64(speed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planning_and_answering_take_what_was_published() {
        let call = |prompt: f64, answer: f64| FIXED.as_secs_f64() + prompt / READING + answer / SPEAKING;
        assert!((call(1400.0, 73.0) - 1.88).abs() < 0.01);
        assert!((call(1400.0, 57.0) - 1.62).abs() < 0.02);
    }

    #[test]
    fn whole_runs_take_about_what_was_published() {
        // 12 tokens for a call's name and arguments, prompts of some 1,000 tokens
        let said = |tokens: u64| FIXED.as_secs_f64() + 1000.0 / READING + tokens as f64 / SPEAKING;
        let turn = |calls: u64| said(THOUGHT_TOKENS + 12 * calls);
        let (answer, search) = (said(REASONING_TOKENS + 5), SEARCH.as_secs_f64());
        for (simulated, published, off) in [
            (2.0 * (turn(1) + search) + answer, 7.12, 0.1),
            (8.0 * (turn(1) + search) + answer, 20.47, 0.1),
            (turn(2) + 0.75 + answer, 4.42, 0.1),
            (turn(8) + 1.13 + answer, 7.42, 0.2),
        ] {
            assert!((simulated / published - 1.0_f64).abs() < off, "{simulated} s against {published} s");
        }
    }

    #[test]
    fn the_cache_saves_what_was_published() {
        let saved = |tokens: f64| {
            let (fixed, reading) = (FIXED.as_secs_f64(), tokens / READING);
            reading * (1.0 - 1.0 / CACHE_SPEEDUP) / (fixed + reading)
        };
        assert!((saved(1000.0) - 0.07).abs() < 0.005);
        assert!((saved(150_000.0) - 0.67).abs() < 0.01);
    }
}
