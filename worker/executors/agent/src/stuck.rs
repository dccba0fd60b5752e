//! Whether an agent goes in circles, judged by what it called and what came back: what it says in between is not
//! looked at, so a loop in other words is a loop.
//!
//! A verdict depends on the history alone and may be computed again anywhere. The first sign is worth a nudge; a
//! sign within [`NUDGE_HOLDS`] turns of a nudge ends the agent. Every sign takes part in the last turn: an agent
//! that has come out of its loop by itself is left alone.
//!
//! Thresholds are those of OpenHands' detector (`stuck_detector.py`; in brackets) or lower. What lets them be
//! lower without false alarms is that calls are compared with their results, and that anything new in between
//! resets the counts:
//!
//! | sign | here | OpenHands |
//! |---|---|---|
//! | the same call with the same result | 3 turns | 4 |
//! | the same call fails, whatever the error says | 2: nudge, 3: stop | 3: nudge, 4: stop |
//! | turns without calls | 3 | 3 |
//! | empty responses | 2 | 3, in its first version only |
//! | a loop of period 2 | 2 rounds, 4 turns | 3 rounds, 6 turns |
//! | a loop of period 3 or 4 | 2 rounds | - |
//! | nothing new | 5 turns | - |
//! | the same call with the same result in parallel branches | 4 in at least 2 turns | - |
//!
//! Not seen: an agent that words a fruitless query anew each time. Its calls differ, as do those of an agent that
//! writes five files and gets five times `ok`.

mod evidence;
#[cfg(test)]
mod tests;

use std::fmt;

/// Turns that are looked at, the last ones. OpenHands: 20 events.
pub const WINDOW: usize = 20;
/// Turns for which a nudge counts: a new loop of the longest period shows within as many.
pub const NUDGE_HOLDS: usize = 2 * MAX_PERIOD;
/// Turns with the same call and result.
pub const REPEATS: usize = 3;
/// Turns in which the same call fails.
pub const ERRORS: usize = 2;
/// Turns without a call.
pub const SILENT: usize = 3;
/// Turns without a call and without text.
pub const EMPTY: usize = 2;
/// Longest loop, in turns.
pub const MAX_PERIOD: usize = 4;
/// Turns without a call or a result that was not there before.
pub const NOTHING_NEW: usize = 5;
/// Times that parallel branches made the same call with the same result.
pub const ACROSS: usize = 4;

/// A call and what came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The tool.
    pub tool: String,
    /// [`crate::call_key`] of the call.
    pub call: String,
    /// [`crate::result_key`] of the result or the error's text. Whatever names the single execution (task ids,
    /// times) must not be in it.
    pub result: String,
    /// The call failed.
    pub error: bool,
    /// Which of several parallel branches of the run made the call; empty where there is one.
    pub branch: String,
}

/// One turn of the model, and what its calls gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    /// Of its calls, in any order. None: the model called nothing.
    pub observations: Vec<Observation>,
    /// It called nothing and said something; without either the response was empty.
    pub text_only: bool,
    /// It was told, before it spoke, that it seemed stuck.
    pub nudged: bool,
}

/// What to do about a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Clear,
    /// Tell the model [`Sign::text`], or have it plan anew.
    Nudge(Sign),
    /// End with what is there.
    Stop(Sign),
}

/// How it shows that an agent is stuck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// The same call gave the same result.
    RepeatedCall {
        /// What is called.
        tool: String,
        /// Turns in which it was.
        times: usize,
    },
    /// The same call failed.
    RepeatedError {
        /// What is called.
        tool: String,
        /// Turns in which it failed.
        times: usize,
    },
    /// Turns without a call.
    Monologue {
        /// How many.
        turns: usize,
    },
    /// Turns without a call and without text.
    Empty {
        /// How many.
        turns: usize,
    },
    /// The same turns over and over.
    Loop {
        /// In turns.
        period: usize,
    },
    /// Old calls with old results, in no order.
    NothingNew {
        /// How many turns.
        turns: usize,
    },
    /// Parallel branches made the same call with the same result.
    AcrossBranches {
        /// What is called.
        tool: String,
        /// How often, at most once per branch and turn.
        times: usize,
    },
}

/// Judges the turns of an agent, oldest first. All but the last [`WINDOW`] turns are of no account.
pub fn judge(history: &[Turn]) -> Verdict {
    let recent = &history[history.len().saturating_sub(WINDOW)..];
    let Some(sign) = evidence::sign(recent) else { return Verdict::Clear };
    if recent.iter().rev().take(NUDGE_HOLDS).any(|turn| turn.nudged) {
        Verdict::Stop(sign)
    } else {
        Verdict::Nudge(sign)
    }
}

impl Sign {
    /// What the model is told.
    pub fn text(&self) -> String {
        let advice = match self {
            Self::RepeatedError { .. } => "Change the arguments, use another tool, or answer without it.",
            Self::Monologue { .. } | Self::Empty { .. } => "Call a tool now, or give the final answer.",
            Self::RepeatedCall { .. }
            | Self::Loop { .. }
            | Self::NothingNew { .. }
            | Self::AcrossBranches { .. } => {
                "Doing it again will not tell more. Try something else, or give the final answer from what is known."
            }
        };
        format!("{self}. {advice}")
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RepeatedCall { tool, times } => {
                write!(
                    f,
                    "`{tool}` was called in {times} turns with the same arguments and gave the same result"
                )
            }
            Self::RepeatedError { tool, times } => {
                write!(f, "`{tool}` was called in {times} turns with the same arguments and failed each time")
            }
            Self::Monologue { turns } => write!(f, "the last {turns} turns called no tool"),
            Self::Empty { turns } => write!(f, "the last {turns} responses were empty"),
            Self::Loop { period } => write!(f, "the last {period} turns repeat the {period} before them"),
            Self::NothingNew { turns } => write!(f, "the last {turns} turns brought nothing new"),
            Self::AcrossBranches { tool, times } => {
                write!(
                    f,
                    "`{tool}` was called {times} times with the same arguments and result in parallel branches"
                )
            }
        }
    }
}
