use proptest::prelude::*;

use super::*;

/// Turns divided by spaces, calls of a turn by `+`: `a1` is the call a with result 1, `a!` fails, `x:a1` is made
/// by branch x; `.` is text only, `-` an empty response; `*` in front: nudged before.
fn history(text: &str) -> Vec<Turn> {
    let observation = |call: &str| {
        let (branch, call) = call.split_once(':').unwrap_or(("", call));
        let (call, result) = call.split_at(1);
        Observation {
            tool: format!("tool-{call}"),
            call: call.to_owned(),
            result: result.to_owned(),
            error: result.starts_with('!'),
            branch: branch.to_owned(),
        }
    };
    text.split_whitespace()
        .map(|turn| {
            let (nudged, turn) = turn.strip_prefix('*').map_or((false, turn), |turn| (true, turn));
            let observations = match turn {
                "." | "-" => Vec::new(),
                calls => calls.split('+').map(observation).collect(),
            };
            Turn { observations, text_only: turn == ".", nudged }
        })
        .collect()
}

fn call(tool: &str, times: usize) -> Sign {
    Sign::RepeatedCall { tool: format!("tool-{tool}"), times }
}

fn error(tool: &str, times: usize) -> Sign {
    Sign::RepeatedError { tool: format!("tool-{tool}"), times }
}

#[test]
fn the_first_sign_is_seen_at_its_turn_and_not_before() {
    for (text, expected) in [
        ("a1 a1 a1", call("a", 3)),
        ("a1+b1 b1+a1 a1", call("a", 3)),
        ("a1 b1+c1 a1+a1 . a1 a1", call("a", 3)),
        ("a! a!", error("a", 2)),
        ("a!1 a!2", error("a", 2)),
        ("a1 a!1 b!1 a!2", error("a", 2)),
        ("a!1+b1 a!2", error("a", 2)),
        ("b1 a! b1 a!", error("a", 2)),
        (". . .", Sign::Monologue { turns: 3 }),
        ("a1 . - .", Sign::Monologue { turns: 3 }),
        ("a1 - -", Sign::Empty { turns: 2 }),
        ("a1 . - -", Sign::Empty { turns: 2 }),
        ("a1 b1 a1 b1", Sign::Loop { period: 2 }),
        ("x1 a1+b1 c1 b1+a1 c1", Sign::Loop { period: 2 }),
        ("a1 b1 c1 a1 b1 c1", Sign::Loop { period: 3 }),
        ("a1 b1 c1 d1 a1 b1 c1 d1", Sign::Loop { period: 4 }),
        ("a1 b1 c1 d1 e1 d1 b1 e1 a1 c1", Sign::NothingNew { turns: 5 }),
        ("x:a1 y:a1 x:b1 x:a1+z:a1", Sign::AcrossBranches { tool: "tool-a".to_owned(), times: 4 }),
        ("x:a1 y:b1 x:a1 y:b2 x:a1+y:b3", call("a", 3)),
    ] {
        let turns = history(text);
        assert_eq!(judge(&turns), Verdict::Nudge(expected), "{text}");
        for end in 0..turns.len() {
            assert_eq!(judge(&turns[..end]), Verdict::Clear, "{text}, after {end} turns");
        }
    }
}

#[test]
fn no_false_alarms() {
    for text in [
        "",
        // Polling, each time with another result.
        "a1 a2 a3 a4 a5 a6 a7 a8",
        // One tool, other arguments; even with one and the same result.
        "a1 b1 c1 d1 e1 f1 g1 h1",
        // Two calls in turn, with new results.
        "a1 b1 a2 b2 a3 b3 a4 b4",
        // Tests after each edit.
        "t1 e1 t1 f1 t1 g1 t1 h1 t1",
        // One old call next to a new one.
        "a1+b1 a1+c1 a1+d1 a1+e1",
        // The same call twice in one turn.
        "a1+a1+a1+a1 b1",
        // Other calls fail; the one that failed was mended in between.
        "a! b! c! d! e! f!",
        "a!1 b1 a!2 c1 a!3 d1",
        "a! a1 a! a2 a!",
        "a1 . a2 - a3 . a4",
        "a1 . - a1",
        // A fan-out whose branches begin alike.
        "w:a1+x:a1+y:a1+z:a1 w:b1+x:c1+y:d1+z:e1",
        "w:a1+x:a1 w:b1 x:c1 w:d1",
        // Loops that have ended.
        "a1 a1 b1 a1",
        "a1 b1 a1 a1",
        "a1 b1 a1 c1 b1",
    ] {
        let turns = history(text);
        for end in 0..=turns.len() {
            assert_eq!(judge(&turns[..end]), Verdict::Clear, "{text}, after {end} turns");
        }
    }
    // Long ago is forgotten.
    let busy: Vec<String> = (0..WINDOW).map(|n| format!("b{n}")).collect();
    assert_eq!(judge(&history(&format!("a1 a1 {} a1", busy.join(" ")))), Verdict::Clear);
}

#[test]
fn a_sign_after_a_nudge_ends_it() {
    for (text, expected) in [
        ("a1 a1 a1 *a1", Verdict::Stop(call("a", 4))),
        ("a! a! *a!", Verdict::Stop(error("a", 3))),
        (". . . *.", Verdict::Stop(Sign::Monologue { turns: 4 })),
        ("a1 b1 a1 b1 *a1", Verdict::Stop(Sign::Loop { period: 2 })),
        // Another sign, soon after.
        ("a! a! *b1 b1 b1", Verdict::Stop(call("b", 3))),
        ("a1 a1 a1 *b1", Verdict::Clear),
        ("a1 a1 a1 *.", Verdict::Clear),
        // Long after.
        ("a! a! *b1 b2 b3 b4 b5 b6 c1 c1 c1", Verdict::Nudge(call("c", 3))),
    ] {
        assert_eq!(judge(&history(text)), expected, "{text}");
    }
}

#[test]
fn what_the_model_is_told_names_the_tool_and_a_way_out() {
    assert_eq!(
        error("a", 2).text(),
        "`tool-a` was called in 2 turns with the same arguments and failed each time. Change the arguments, use \
         another tool, or answer without it."
    );
}

proptest! {
    #[test]
    fn the_order_of_parallel_calls_does_not_count(turns in proptest::collection::vec(proptest::collection::vec("[ab][12]", 1..3), 0..12)) {
        let text = |turns: &[Vec<String>]| turns.iter().map(|t| t.join("+")).collect::<Vec<_>>().join(" ");
        let reversed: Vec<Vec<String>> = turns.iter().map(|t| t.iter().rev().cloned().collect()).collect();
        let kind = |turns: &[Vec<String>]| match judge(&history(&text(turns))) {
            Verdict::Nudge(sign) | Verdict::Stop(sign) => Some(std::mem::discriminant(&sign)),
            Verdict::Clear => None,
        };
        prop_assert_eq!(kind(&turns), kind(&reversed));
    }

    #[test]
    fn an_agent_that_gets_nowhere_is_stopped(turns in proptest::collection::vec(0u8..3, 30)) {
        // Three calls whose results never change, in any order, nudged whenever told.
        let mut history: Vec<Turn> = Vec::new();
        let mut nudged = false;
        let stopped = turns.iter().any(|call| {
            let mut turn = super::tests::history(&format!("{call}1")).remove(0);
            turn.nudged = nudged;
            history.push(turn);
            let verdict = judge(&history);
            nudged = matches!(verdict, Verdict::Nudge(_));
            matches!(verdict, Verdict::Stop(_))
        });
        prop_assert!(stopped);
        // Three new things, five turns without, and one after the nudge.
        prop_assert!(history.len() <= 3 * 4 + 4, "{}", history.len());
    }
}
