//! A database's schema as SQL: `pg_dump` of the branch's Postgres, or of one at a moment, which is
//! started on a timeline of its own and thrown away with it.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use utoipa::{IntoParams, ToSchema};

use super::{
    branches::moment,
    context::{Context, finish, new_timeline},
    error::{ApiError, GeneralError},
    request::{Path, Query},
    work,
};
use crate::{
    Compute, StartRequest,
    catalog::{branches, databases, endpoints, ids, timelines},
};

/// Where Debian has the version that is served.
const DEBIAN_BIN: &str = "/usr/lib/postgresql/15/bin";
/// How long `pg_dump` may take.
const DUMP_MAX: Duration = Duration::from_secs(120);

/// A database's schema.
#[derive(Serialize, ToSchema)]
pub struct BranchSchema {
    sql: String,
}

/// Of which database, and when.
#[derive(Deserialize, IntoParams)]
pub struct SchemaQuery {
    /// The database.
    db_name: String,
    /// As of this LSN; now where no moment is said.
    lsn: Option<String>,
    /// As of this moment.
    timestamp: Option<String>,
}

/// Show a database's schema. The branch's compute is started where it sleeps.
#[utoipa::path(get, path = "/projects/{project_id}/branches/{branch_id}/schema",
    tag = "branches", params(("project_id" = String, Path), ("branch_id" = String, Path),
    SchemaQuery),
    responses((status = 200, body = BranchSchema), (status = "default", body = GeneralError)))]
pub(super) async fn show(
    State(context): State<Arc<Context>>,
    Path((project, branch)): Path<(String, String)>,
    Query(SchemaQuery { db_name, lsn, timestamp }): Query<SchemaQuery>,
) -> Result<Json<BranchSchema>, ApiError> {
    let moment = moment(lsn.as_deref(), timestamp.as_deref())?;
    let shown = finish(async move {
        match moment {
            None => now(&context, project, branch, &db_name).await,
            Some(moment) => then(&context, project, branch, &db_name, moment).await,
        }
    });
    Ok(Json(BranchSchema { sql: shown.await? }))
}

async fn now(
    context: &Context,
    project: String,
    branch: String,
    database: &str,
) -> Result<String, ApiError> {
    let name = database.to_owned();
    let read = context.catalog.read(move |catalog| {
        let branch = branches::get(catalog, &project, &branch)?;
        let endpoint = endpoints::of_branch(catalog, &branch.id)?;
        Ok((endpoint, databases::find(catalog, &branch.id, &name)?, branch))
    });
    let (endpoint, known, branch) = read.await?;
    let Some(endpoint) = endpoint else {
        return Err(ApiError::refused(format!(
            "branch {} has no endpoint, so no Postgres can be asked: create one first",
            branch.id
        )));
    };
    if known.is_none() && context.running(&branch).is_none() {
        let id = &branch.id;
        return Err(ApiError::not_found(format!("branch {id} has no database {database:?}")));
    }
    context.wake(&endpoint.id).await?;
    let Some(compute) = context.running(&branch) else {
        return Err(ApiError::unavailable("the branch was suspended meanwhile: try again"));
    };
    dump(context, &compute, database).await
}

async fn then(
    context: &Arc<Context>,
    project: String,
    branch: String,
    database: &str,
    moment: timelines::Moment,
) -> Result<String, ApiError> {
    context.ensure_tenant(&project).await?;
    let name = format!("schema-{}", ids::suffix(&mut rand::rng()));
    let of = project.clone();
    let written = context.catalog.write(move |catalog| {
        let branch = branches::get(catalog, &of, &branch)?;
        let timeline = new_timeline(&of, name, &branch.timeline, Some(moment));
        // Wanted by nobody else: a crash leaves it to be removed.
        timelines::insert(catalog, &timeline, timelines::State::Wanted)?;
        timelines::count_for(catalog, &of, &timeline.name, &branch.id)?;
        Ok(timeline)
    });
    let timeline = written.await?;
    let dumped = dump_of(context, &timeline, database).await;
    let forgotten = context.forget(&project, &timeline.name).await;
    work::leave(context, project, timeline.name);
    forgotten?;
    dumped
}

async fn dump_of(
    context: &Context,
    timeline: &timelines::Timeline,
    database: &str,
) -> Result<String, ApiError> {
    let timelines::Timeline { project, name, parent, moment } = timeline;
    let parent = parent.as_deref().unwrap_or(timelines::FIRST);
    context.refuse_used_up(project, parent).await?;
    let region = context.region(project);
    region.storage.create_timeline(project, name, parent, moment.as_ref()).await?;
    let request = StartRequest::of(project.clone(), name.clone());
    let compute = region.endpoints.start(&request).await?;
    dump(context, &compute, database).await
}

async fn dump(context: &Context, compute: &Compute, database: &str) -> Result<String, ApiError> {
    let program = program(context);
    let mut command = Command::new(&program);
    command
        .args(["--schema-only", "--username", "postgres"])
        .arg("--host")
        .arg(&compute.sockets)
        .args(["--port", &compute.port.to_string()])
        // A name that looks like a connection string is a name all the same.
        .env("PGDATABASE", database)
        .env_remove("PGSERVICE")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(DUMP_MAX, command.output())
        .await
        .map_err(|_| ApiError::unavailable("pg_dump did not end: try again later"))?
        .map_err(|error| {
            ApiError::internal(format!(
                "{} does not run ({error}): install postgresql-client-15",
                program.display()
            ))
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(ApiError::refused(format!("pg_dump failed: {}", said.trim())));
    }
    let sql = String::from_utf8(output.stdout)
        .map_err(|_| ApiError::refused("the schema is not UTF-8: pg_dump it yourself"))?;
    Ok(without_key(&sql))
}

/// The script without the random key that psql is told: two dumps of one schema are alike
/// (`restrict_key` in `pg_dump.c`).
fn without_key(sql: &str) -> String {
    let Some(key) = sql.lines().find_map(|line| line.strip_prefix("\\restrict ")) else {
        return sql.to_owned();
    };
    let is_other = |line: &&str| {
        let rest = line.strip_prefix("\\restrict ").or(line.strip_prefix("\\unrestrict "));
        rest != Some(key)
    };
    sql.lines().filter(is_other).flat_map(|line| [line, "\n"]).collect()
}

fn program(context: &Context) -> PathBuf {
    let folders = context.pg_bin.iter().cloned().chain([PathBuf::from(DEBIAN_BIN)]);
    let found = folders.map(|folder| folder.join("pg_dump")).find(|program| program.is_file());
    found.unwrap_or_else(|| PathBuf::from("pg_dump"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_dumps_of_one_schema_are_alike() {
        let dump =
            |key: &str| format!("--\n\\restrict {key}\nCREATE TABLE t ();\n\\unrestrict {key}\n");
        assert_eq!(without_key(&dump("abc")), "--\nCREATE TABLE t ();\n");
        assert_eq!(without_key(&dump("abc")), without_key(&dump("def")));
        // A line of a function's body that looks alike stays.
        let sql = "\\restrict abc\n\\restrict other\n\\unrestrict abc\n";
        assert_eq!(without_key(sql), "\\restrict other\n");
    }
}
