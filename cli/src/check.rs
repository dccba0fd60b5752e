//! `trireme check`, and the check every spec goes through before it runs.

use std::path::Path;

use trireme_spec::{Checker, Compiled};

use crate::{command::Check, exit::Failure, settings::Settings, source, stack::Capabilities};

/// Prints the derived graph of `args.file`, or every error.
pub async fn check(args: Check, settings: Settings) -> Result<(), Failure> {
    let text = source::read(&args.file)?;
    let capabilities = Capabilities::new(&settings).await?;
    let compiled = compile(&text, &[], &capabilities).map_err(|failure| place(&args.file, failure));
    capabilities.tools.shutdown().await;
    let compiled = compiled?;
    print!("{}", if args.mermaid { compiled.mermaid() } else { compiled.tree() });
    Ok(())
}

fn place(file: &Path, failure: Failure) -> Failure {
    Failure::usage(format!("{}: {failure}", file.display()))
}

/// Compiles `text`, with `inputs` (`KEY=VALUE`) over its own, against the models and tools there are.
pub fn compile(text: &str, inputs: &[String], capabilities: &Capabilities) -> Result<Compiled, Failure> {
    trireme_spec::compile(text, inputs, capabilities).map_err(Failure::usage)
}

impl Checker for Capabilities {
    fn model(&self, name: &str) -> Result<(), String> {
        let model = self.providers.resolve(name).map_err(|error| error.to_string())?;
        match model.missing_key() {
            Some(variable) => Err(format!("no API key: set the environment variable {variable}")),
            None => Ok(()),
        }
    }

    fn tool(&self, name: &str) -> Result<(), String> {
        match self.tools.get(name) {
            Some(_) => Ok(()),
            None => {
                let known: Vec<String> = self.tools.specs().into_iter().map(|spec| spec.name).collect();
                Err(format!("unknown tool {name:?}; known: {}", known.join(", ")))
            }
        }
    }

    fn args(&self, tool: &str, args: &serde_json::Value) -> Result<(), String> {
        self.tools.check(tool, args).map_err(|error| error.to_string())
    }
}
