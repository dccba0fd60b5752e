//! `trireme pools`: what waits in them, and whether anything of them starts.

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::{
    client::Client,
    command::Server,
    exit::{Failure, say},
};

/// `trireme pools`
#[derive(Args)]
#[command(after_help = "Examples:
  trireme pools list
  trireme pools pause llm      on all workers, also those that start later; what runs goes on
  trireme pools resume llm")]
pub struct Pools {
    /// What to do with them
    #[command(subcommand)]
    pub action: Action,
    /// Where
    #[command(flatten)]
    pub server: Server,
}

/// `trireme pools …`
#[derive(Subcommand)]
pub enum Action {
    /// List the pools that are paused or have tasks, and how many of them are ready
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Let nothing of a pool start; what runs goes on
    Pause {
        /// The pool's name
        pool: String,
    },
    /// Let a paused pool's tasks start again
    Resume {
        /// The pool's name
        pool: String,
    },
}

/// `trireme pools …`
pub async fn pools(args: Pools) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    let (pool, verb) = match args.action {
        Action::List { json } => {
            let list: Value = client.json(client.get("/v1/pools")).await?;
            if json {
                say(&list);
            } else {
                list["pools"].as_array().into_iter().flatten().for_each(show);
            }
            return Ok(());
        }
        Action::Pause { pool } => (pool, "pause"),
        Action::Resume { pool } => (pool, "resume"),
    };
    // a name with other characters is refused by the server; it must only not become another address
    let pool = pool.replace('%', "%25").replace('/', "%2F").replace('?', "%3F").replace('#', "%23");
    let pool: Value = client.json(client.post(&format!("/v1/pools/{pool}/{verb}"))).await?;
    show(&pool);
    Ok(())
}

fn show(pool: &Value) {
    let state = if pool["paused"] == true { "paused" } else { "active" };
    let ready = pool["ready"].as_u64().map_or_else(|| "?".to_owned(), |ready| ready.to_string());
    say(format_args!("{:16}  {state}  {ready} ready", pool["pool"].as_str().unwrap_or_default()));
}
