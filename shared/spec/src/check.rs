//! What a spec may name that stands elsewhere: models and tools of the caller's configuration.

use serde_json::Value;

/// Knows which models and tools there are, so that an unknown one is refused before the run starts. The texts of
/// errors are shown to the user: say what is wrong and what would be right.
pub trait Checker {
    /// Whether a model of this name can be called; aliases of the spec are resolved before.
    fn model(&self, name: &str) -> Result<(), String>;
    /// Whether there is a tool of this name.
    fn tool(&self, name: &str) -> Result<(), String>;
    /// Whether these arguments fit the tool. Asked only where no template stands in them.
    fn args(&self, tool: &str, args: &Value) -> Result<(), String> {
        let _ = (tool, args);
        Ok(())
    }
}

/// Takes every name: for tests, and for callers that can't know.
#[derive(Debug, Clone, Copy, Default)]
pub struct Permissive;

impl Checker for Permissive {
    fn model(&self, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn tool(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}
