//! Changing what a branch's Postgres holds: at once where it runs, before its next connection where
//! it sleeps.
//!
//! The rows, the change that waits for Postgres and the operation are one write. Where Postgres
//! runs and refuses, that write is taken back; where the control plane ends in between, the computes
//! end with it, and the change is applied at the next start.

use rusqlite::Connection;

use super::{
    context::{Context, operation},
    error::ApiError,
    time::now,
};
use crate::catalog::{
    self,
    branches::{self, Branch},
    databases::{self, Database},
    endpoints,
    operations::{self, Action, Operation, Status},
    roles::{self, Change, Role},
};

/// A branch's roles and databases.
struct Contents {
    roles: Vec<Role>,
    databases: Vec<Database>,
}

fn contents(catalog: &Connection, branch: &str) -> Result<Contents, catalog::Error> {
    Ok(Contents {
        roles: roles::list(catalog, branch)?,
        databases: databases::list(catalog, branch)?,
    })
}

impl Context {
    /// Changes rows of a branch by `change`, which says what Postgres is to do. The operation is
    /// over when this answers: whoever connects from now on finds it done.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        project: String,
        branch: String,
        change: impl FnOnce(&Connection, &Branch) -> Result<(Change, T), catalog::Error>
        + Send
        + 'static,
    ) -> Result<(T, Operation), ApiError> {
        let _turn = self.turn(&branch).await;
        let written = self.catalog.write(move |catalog| {
            let branch = branches::get(catalog, &project, &branch)?;
            let before = contents(catalog, &branch.id)?;
            let (change, changed) = change(catalog, &branch)?;
            let number = roles::wait(catalog, &branch.id, &change)?;
            let endpoint = endpoints::of_branch(catalog, &branch.id)?.map(|endpoint| endpoint.id);
            let (id, endpoint) = (Some(branch.id.as_str()), endpoint.as_deref());
            let new = operation(&project, id, endpoint, Action::ApplyConfig, Status::Running);
            Ok((operations::insert(catalog, &new, now())?, branch, before, number, changed))
        });
        let (operation, branch, before, number, changed) = written.await?;
        let applied = match self.to_change(&branch).await? {
            Some(compute) => self.apply(&branch, &compute).await,
            None => Ok(Ok(())),
        };
        match applied {
            Ok(Ok(())) => Ok((changed, self.end(&operation, Ok(())).await?)),
            Ok(Err((refused, said))) => {
                let error = ApiError::refused(said);
                self.take_back(&branch, before, vec![refused, number]).await?;
                self.end(&operation, Err(&error)).await?;
                Err(error)
            }
            Err(error) => {
                self.take_back(&branch, before, vec![number]).await?;
                self.end(&operation, Err(&error)).await?;
                Err(error)
            }
        }
    }

    async fn take_back(
        &self,
        branch: &Branch,
        before: Contents,
        changes: Vec<i64>,
    ) -> Result<(), ApiError> {
        let branch = branch.id.clone();
        let taken_back = self.catalog.write(move |catalog| {
            for number in changes {
                roles::done(catalog, number)?;
            }
            for role in roles::list(catalog, &branch)? {
                if !before.roles.iter().any(|earlier| earlier.name == role.name) {
                    roles::remove(catalog, &branch, &role.name)?;
                }
            }
            for role in &before.roles {
                roles::put(catalog, role)?;
            }
            for database in databases::list(catalog, &branch)? {
                match before.databases.iter().find(|earlier| earlier.id == database.id) {
                    None => databases::remove(catalog, database.id)?,
                    Some(Database { id, name, owner, updated_at, .. }) => {
                        databases::update(catalog, *id, name, owner, *updated_at)?;
                    }
                }
            }
            for Database { id, name, owner, .. } in &before.databases {
                if databases::find(catalog, &branch, name)?.is_none() {
                    databases::restore(catalog, *id, &branch, name, owner, now())?;
                }
            }
            Ok(())
        });
        Ok(taken_back.await?)
    }

    /// Looks at a branch's Postgres where it runs, so that what was made by SQL is listed.
    pub(super) async fn look(&self, project: String, branch: String) -> Result<(), ApiError> {
        let read = self.catalog.read(move |catalog| branches::get(catalog, &project, &branch));
        let branch = read.await?;
        if self.running(&branch).is_none() {
            return Ok(());
        }
        let _turn = self.turn(&branch.id).await;
        let Some(compute) = self.running(&branch) else { return Ok(()) };
        self.take_over(&branch, &compute).await.map(drop)
    }
}
