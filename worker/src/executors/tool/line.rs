//! What a call touches: before it begins, it stands in the store's line for that.

use serde_json::Value;
use trireme_agent::call_key;
use trireme_model::{Extend, Extended, More, limits::MAX_RESOURCE};
use trireme_tool::Tools;

use crate::{executors::Job, outcome::Failure};

/// What a call of `name` must not touch at the same time as another task of the run.
pub(in crate::executors) fn resource(tools: &Tools, name: &str, args: &Value) -> Option<String> {
    let resource = tools.resource(name, args).ok().flatten().filter(|resource| !resource.is_empty())?;
    if resource.len() <= MAX_RESOURCE {
        return Some(resource);
    }
    // the store bounds names; a hash is as good
    Some(call_key("resource", &Value::String(resource)))
}

/// Waits in the line for `resource`; says whether the task has it. If not, the attempt is over: dying after this is as
/// if it had never begun, and another one begins when those before it have ended.
pub(super) async fn touch(job: &Job<'_>, resource: String) -> Result<bool, Failure> {
    let extend = Extend {
        run: job.assignment.run.clone(),
        task: job.assignment.task.clone(),
        token: job.assignment.token.clone(),
        more: More::Resource(resource),
    };
    match job.shared.read(|| job.shared.backend.extend(extend.clone())).await? {
        Extended::Held => Ok(true),
        // stale: queued already, and only the answer was lost; or somebody else has the task
        Extended::Queued | Extended::Stale | Extended::Cancelled | Extended::Gone => Ok(false),
        Extended::Refused | Extended::Added(_) | Extended::Width(_) => {
            Err(Failure::permanent("resource_refused", "the store does not take the name of the resource"))
        }
    }
}
