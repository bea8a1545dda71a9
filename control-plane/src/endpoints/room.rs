//! How many computes may be beside that of a branch's head.

use std::sync::Arc;

use crate::{
    Error,
    catalog::endpoints::READ_ONLY_MAX,
    endpoint::Endpoint,
    pageserver_client::Branch,
    served::{Served, What},
};

/// For how many moments of its history a tenant may have computes at a time: any of its clients can ask
/// for one.
const MOMENTS_MAX: usize = 8;

/// How many standbys a branch may have.
const STANDBYS_MAX: usize = READ_ONLY_MAX;

/// Refuses one more compute of a moment or standby where there are as many as there may be.
pub(super) fn check<'e>(
    tenant: &str,
    branch: &Branch,
    served: &Served,
    all: impl Iterator<Item = &'e Arc<Endpoint>>,
) -> Result<(), Error> {
    let of_tenant = all.filter(|endpoint| endpoint.tenant_id() == branch.tenant_id);
    let others: Vec<Served> = of_tenant.map(|endpoint| endpoint.served()).collect();
    match &served.what {
        What::Head => Ok(()),
        What::Moment(_) => {
            if others.iter().filter(|other| other.is_moment()).count() < MOMENTS_MAX {
                return Ok(());
            }
            Err(Error::Conflict(format!(
                "{tenant} has computes for {MOMENTS_MAX} moments of its history already, which is the \
                 most: end connections to one of them, and wait until it is suspended"
            )))
        }
        What::Standby(name) => {
            let is_one = |other: &&Served| other.is_standby() && other.timeline == served.timeline;
            if others.iter().any(|other| other.folder_name() == served.folder_name()) {
                return Err(Error::Conflict(format!(
                    "a standby of the branch has a name that ends as {name:?} does: choose another"
                )));
            }
            if others.iter().filter(is_one).count() < STANDBYS_MAX {
                return Ok(());
            }
            Err(Error::Conflict(format!(
                "branch {} has {STANDBYS_MAX} standbys already, which is the most: delete one first",
                branch.name
            )))
        }
    }
}
