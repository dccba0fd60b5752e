//! How much one call may bring along: what every backend refuses before it looks at the run.

use trireme_model::{Added, Complete, Extend, More, Outcome, Payload, limits::MAX_RESULT_BYTES};

use crate::Error;

fn check(what: &'static str, got: usize) -> Result<(), Error> {
    let limit = MAX_RESULT_BYTES;
    if got > limit { Err(Error::TooLarge { what, got, limit }) } else { Ok(()) }
}

fn bodies(tasks: &[Added]) -> usize {
    tasks.iter().map(|added| added.spec.body.len()).sum()
}

/// Bounds the arguments, or the bodies of the tasks, of one `extend` by [`MAX_RESULT_BYTES`] together.
///
/// # Errors
/// [`Error::TooLarge`].
pub fn check_extend(extend: &Extend) -> Result<(), Error> {
    match &extend.more {
        More::Children { args, .. } => check("arguments of one extend", args.iter().map(Payload::len).sum()),
        More::Tasks(tasks) => check("tasks of one extend", bodies(tasks)),
        // the store refuses a name that is too long
        More::Resource(_) => Ok(()),
    }
}

/// Bounds the result of a `complete`, and the bodies of its tasks together, by [`MAX_RESULT_BYTES`] each.
///
/// # Errors
/// [`Error::TooLarge`].
pub fn check_complete(complete: &Complete) -> Result<(), Error> {
    if let Outcome::Result(value) | Outcome::Answer { value, .. } = &complete.outcome {
        check("result", value.len())?;
    }
    check("tasks of one complete", bodies(&complete.tasks))
}
