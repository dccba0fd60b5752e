//! `trireme dead-letters`: tasks in quarantine, and their runs once more.

use clap::{ArgGroup, Args, Subcommand};
use serde_json::Value;
use trireme_model::{RunId, TaskId};

use crate::{
    client::Client,
    command::Server,
    exit::{Failure, note, say},
};

/// Dead letters asked for at once.
const PAGE: &str = "200";

/// `trireme dead-letters`
#[derive(Args)]
#[command(after_help = "Examples:
  trireme dead-letters list --pool llm
  trireme dead-letters show RUN/TASK            RUN/TASK as the list prints it
  trireme dead-letters replay RUN/TASK
  trireme dead-letters replay --all --pool llm")]
pub struct DeadLetters {
    /// What to do with them
    #[command(subcommand)]
    pub action: Action,
    /// Where
    #[command(flatten)]
    pub server: Server,
}

/// `trireme dead-letters …`
#[derive(Subcommand)]
pub enum Action {
    /// List tasks in quarantine, newest first
    List {
        /// Which
        #[command(flatten)]
        filter: Filter,
        /// Print them as JSON, one a line
        #[arg(long)]
        json: bool,
    },
    /// Print one as JSON
    Show {
        /// RUN/TASK, as the list prints it
        id: Letter,
    },
    /// Start runs that go on from what the failed ones recorded
    #[command(group(ArgGroup::new("which").required(true).args(["id", "all"])))]
    Replay {
        /// RUN/TASK, as the list prints it
        id: Option<Letter>,
        /// All of the list
        #[arg(long)]
        all: bool,
        /// Which of all
        #[command(flatten)]
        filter: Filter,
    },
}

/// Which of them.
#[derive(Args)]
pub struct Filter {
    /// Only those of this pool
    #[arg(long)]
    pub pool: Option<String>,
    /// Only those of this run
    #[arg(long)]
    pub run: Option<RunId>,
}

/// A task in quarantine: `RUN/TASK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    run: RunId,
    task: TaskId,
}

impl std::str::FromStr for Letter {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (run, task) = text.split_once('/').ok_or("write RUN/TASK, as the list prints it")?;
        let run = RunId::new(run).map_err(|error| error.to_string())?;
        Ok(Self { run, task: TaskId::new(task).map_err(|error| error.to_string())? })
    }
}

impl Letter {
    /// Its address; the slashes of the task must not divide it.
    fn path(&self) -> String {
        format!("/v1/dead-letters/{}/{}", self.run, self.task.as_str().replace('/', "%2F"))
    }
}

impl Filter {
    fn query(&self, cursor: Option<&str>) -> Vec<(&'static str, String)> {
        let mut query = vec![("limit", PAGE.to_owned())];
        query.extend(self.pool.clone().map(|pool| ("pool", pool)));
        query.extend(self.run.as_ref().map(|run| ("run", run.to_string())));
        query.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
        query
    }
}

/// `trireme dead-letters …`
pub async fn dead_letters(args: DeadLetters) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    match args.action {
        Action::List { filter, json } => {
            let mut cursor: Option<String> = None;
            loop {
                let request = client.get("/v1/dead-letters");
                let page: Value = client.json(request.query(&filter.query(cursor.as_deref()))).await?;
                page["dead_letters"].as_array().into_iter().flatten().for_each(|letter| show(letter, json));
                cursor = page["next_cursor"].as_str().map(str::to_owned);
                if cursor.is_none() {
                    return Ok(());
                }
            }
        }
        Action::Show { id } => {
            let letter: Value = client.json(client.get(&id.path())).await?;
            say(serde_json::to_string_pretty(&letter).map_err(anyhow::Error::from)?);
            Ok(())
        }
        Action::Replay { id: Some(id), .. } => {
            let path = format!("{}/replay", id.path());
            let replay: Value = client.json(client.post(&path)).await?;
            say(replay["run_id"].as_str().unwrap_or_default());
            Ok(())
        }
        Action::Replay { id: None, filter, .. } => replay_all(&client, &filter).await,
    }
}

/// Replays page by page: what is replayed leaves the list, so that the next page begins behind what was left.
async fn replay_all(client: &Client, filter: &Filter) -> Result<(), Failure> {
    let (mut cursor, mut count, mut left) = (None::<String>, 0_usize, 0_usize);
    loop {
        let request = client.post("/v1/dead-letters/replay");
        let page: Value = client.json(request.query(&filter.query(cursor.as_deref()))).await?;
        for replay in page["replays"].as_array().into_iter().flatten() {
            count += 1;
            say(replay["run_id"].as_str().unwrap_or_default());
        }
        left += page["left"].as_array().map_or(0, Vec::len);
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    note(format_args!("{count} runs go on"));
    if left > 0 {
        note(format_args!(
            "{left} tasks in quarantine are left: their runs did not fail, they went on without them"
        ));
    }
    Ok(())
}

fn show(letter: &Value, json: bool) {
    if json {
        return say(letter);
    }
    let field = |name: &str| letter[name].as_str().unwrap_or_default().to_owned();
    let at = letter["quarantined_ms"].as_u64().unwrap_or_default();
    let at = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_millis(at));
    let (run, task, pool, status) = (field("run_id"), field("task"), field("pool"), field("run_status"));
    say(format_args!("{run}/{task}  {pool:8}  {at}  run {status}  {}", field("run_name")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_a_run_and_a_task_with_slashes() {
        let letter: Letter = "r-1/each/3".parse().unwrap();
        assert_eq!(letter.path(), "/v1/dead-letters/r-1/each%2F3");
        for bad in ["r", "r/", "/a", "r/a b"] {
            assert!(bad.parse::<Letter>().is_err(), "{bad}");
        }
    }
}
