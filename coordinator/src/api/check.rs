//! `POST /v1/check`: everything that submitting would check, and the derived graph; nothing is started.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize};
use trireme_model::{Kind, Ms, TaskId};

use super::{
    App,
    body::{self, Spec},
    problem::Problem,
    query, runs,
};
use crate::Compiled;

/// A spec without errors, and what it would run as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// The run's label.
    pub name: String,
    /// Time limit of the run in ms.
    pub deadline_ms: Option<Ms>,
    /// In the order of the graph; the last is the output.
    pub tasks: Vec<CheckedTask>,
}

/// One task of the derived graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedTask {
    /// Its id.
    pub id: TaskId,
    /// What kind of work it is.
    pub kind: Kind,
    /// The pool it would run in; empty for a join.
    pub pool: String,
    /// The tasks it waits for. Whatever does not wait for each other runs at once.
    pub inputs: Vec<TaskId>,
}

pub async fn check(State(app): State<Arc<App>>, request: Request) -> Result<Json<Checked>, Problem> {
    query::none(request.uri())?;
    let Spec { text, format, room: _room } = body::read(request, &app).await?;
    let _permit = app.admit_submit()?;
    Ok(Json(runs::compile(&app, text, format).await?.into()))
}

impl From<Compiled> for Checked {
    fn from(compiled: Compiled) -> Self {
        let tasks = compiled.graph.tasks().iter().map(|task| CheckedTask {
            id: task.id.clone(),
            kind: task.exec.kind,
            pool: task.exec.pool.clone(),
            inputs: task.inputs.clone(),
        });
        Self { name: compiled.name, deadline_ms: compiled.deadline, tasks: tasks.collect() }
    }
}
