//! `map` tasks: hand over one child per item, in bounded pieces.

use trireme_model::{
    Extend, Extended, More, Outcome, Payload,
    limits::{EXTEND_CHUNK, MAX_WIDTH},
};

use super::Job;
use crate::outcome::{Ended, Failure};

/// Bytes of arguments in one piece; a single larger item goes alone.
const CHUNK_BYTES: usize = 512 * 1024;

/// Dying between two pieces is harmless: the next attempt hands over the same items again, and the store
/// skips those that it has.
pub(super) async fn expand(job: &Job<'_>, items: Vec<Payload>) -> Result<Ended, Failure> {
    let mut start = 0;
    while start < items.len() {
        let end = piece(&items, start);
        let extend = Extend {
            run: job.assignment.run.clone(),
            task: job.assignment.task.clone(),
            token: job.assignment.token.clone(),
            // bounded by MAX_WIDTH
            more: More::Children { start: start as u32, args: items[start..end].to_vec() },
        };
        match job.shared.read(|| job.shared.backend.extend(extend.clone())).await? {
            Extended::Width(_) => start = end,
            Extended::Refused | Extended::Added(_) | Extended::Held | Extended::Queued => {
                let text = format!("{} items are over the limit of {MAX_WIDTH}", items.len());
                return Err(Failure::permanent("too_wide", text));
            }
            // whoever holds the task now does the same
            Extended::Stale | Extended::Cancelled | Extended::Gone => {
                return Err(Failure::permanent("cancelled", "the map is not held any more"));
            }
        }
    }
    Ok(Ended::Done { outcome: Outcome::Expanded, tasks: Vec::new() })
}

/// Where the piece that begins at `start` ends.
fn piece(items: &[Payload], start: usize) -> usize {
    let mut bytes = 0;
    let mut end = start;
    while end < items.len() && end - start < EXTEND_CHUNK {
        bytes += items[end].len();
        if bytes > CHUNK_BYTES && end > start {
            break;
        }
        end += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_bounded_by_count_and_bytes() {
        let small = vec![Payload::of("x"); EXTEND_CHUNK + 1];
        assert_eq!(piece(&small, 0), EXTEND_CHUNK);
        assert_eq!(piece(&small, EXTEND_CHUNK), EXTEND_CHUNK + 1);
        let large = vec![Payload::of(&"x".repeat(CHUNK_BYTES)); 3];
        assert_eq!(piece(&large, 1), 2);
    }
}
