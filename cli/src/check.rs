//! `trireme check`, and the check every spec goes through before it runs.

use std::path::Path;

use trireme_spec::{Checker, Compiled};

use crate::{
    command::Check,
    exit::{Failure, note, say},
    settings::Settings,
    source,
    stack::Capabilities,
};

/// Prints the derived graph of `args.file`, or every error.
pub async fn check(args: Check, settings: Settings) -> Result<(), Failure> {
    let text = source::read(&args.file)?;
    let here = Capabilities::new(&settings).await?;
    // a check calls nobody, so it needs no keys
    let elsewhere = Elsewhere(here.clone());
    let compiled = compile(&args.file, &text, &[], &elsewhere);
    let missing = compiled.is_ok().then(|| compile(&args.file, &text, &[], &here).err()).flatten();
    here.tools.shutdown().await;
    let compiled = compiled?;
    if let Some(missing) = missing {
        note(format_args!("to run it here: {missing}"));
    }
    let graph = if args.mermaid { compiled.mermaid() } else { compiled.tree() };
    say(graph.trim_end());
    Ok(())
}

/// Compiles `text`, with `inputs` (`KEY=VALUE`) over its own, against the models and tools that `checker` knows. `file` is
/// what errors call it.
pub fn compile(
    file: &Path,
    text: &str,
    inputs: &[String],
    checker: &dyn Checker,
) -> Result<Compiled, Failure> {
    source::inputs(inputs)?;
    trireme_spec::compile(text, inputs, checker).map_err(|problems| {
        Failure::usage(format!("{}: {problems}", source::name(file)).replace('\n', "\n  "))
    })
}

/// Checks for workers elsewhere: they hold the API keys, this process need not.
pub struct Elsewhere(pub Capabilities);

impl Checker for Elsewhere {
    fn model(&self, name: &str) -> Result<(), String> {
        self.0.providers.resolve(name).map(drop).map_err(|error| error.to_string())
    }

    fn tool(&self, name: &str) -> Result<(), String> {
        self.0.tool(name)
    }

    fn args(&self, tool: &str, args: &serde_json::Value) -> Result<(), String> {
        Checker::args(&self.0, tool, args)
    }
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
