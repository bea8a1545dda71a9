//! Which project is in which region: seen at the start, and made anew of what the regions have.

use super::{error::ApiError, time};
use crate::{
    Error, Region, RegionId, Regions,
    catalog::{Catalog, rebuild, regions},
};

/// Takes over where projects are. Refuses regions that do not have all of the catalog's projects.
pub(super) async fn settle(catalog: &Catalog, of: &Regions) -> Result<(), Error> {
    let default = of.default().id.clone();
    let settled = async {
        let id = default.clone();
        catalog.write(move |catalog| regions::adopt(catalog, &id)).await?;
        let read = catalog.read(move |catalog| {
            Ok((regions::counts(catalog)?, regions::elsewhere(catalog, &default)?))
        });
        read.await
    };
    let failed = |error: crate::catalog::Error| Error::Regions(error.to_string());
    let (counts, elsewhere) = settled.await.map_err(failed)?;
    refuse_unknown(of, &counts)?;
    for (project, region) in elsewhere {
        if let Some(region) = of.get(&region) {
            of.place(&project, region);
        }
    }
    Ok(())
}

fn refuse_unknown(of: &Regions, counts: &[(RegionId, u64)]) -> Result<(), Error> {
    let Some((region, count)) = counts.iter().find(|(region, _)| of.get(region).is_none()) else {
        return Ok(());
    };
    let projects =
        if *count == 1 { "1 project is".to_owned() } else { format!("{count} projects are") };
    Err(Error::Regions(format!(
        "{projects} in region {region}, which is none of the regions that are configured: {}. Configure \
         it again, or give one of them its id where it was only renamed; a region can be left out once \
         its projects are deleted and a week has passed",
        of.ids()
    )))
}

/// Fills a new catalog with what the regions have in their buckets; how many projects.
pub(super) async fn rebuild(catalog: &Catalog, regions: &Regions) -> Result<usize, ApiError> {
    let mut count = 0;
    for region in regions.all() {
        count += rebuild_region(catalog, region).await?;
    }
    Ok(count)
}

async fn rebuild_region(catalog: &Catalog, region: &Region) -> Result<usize, ApiError> {
    let tenants = region.storage.tenants().await?;
    let count = tenants.len();
    for tenant in tenants {
        let timelines = region.storage.timelines(&tenant.id).await?;
        let mut rows = Vec::with_capacity(timelines.len());
        for timeline in timelines {
            let own = timeline.ancestor.filter(|from| from.tenant_id == timeline.tenant_id);
            rows.push(rebuild::TenantTimeline {
                name: timeline.name,
                parent: own.map(|from| from.name),
                branch_point: timeline.branch_point,
                created_at: time::parse(&timeline.created_at)?,
            });
        }
        let tenant = rebuild::Tenant {
            region: region.id.clone(),
            history_seconds: tenant.history.seconds.unwrap_or_default(),
            created_at: time::parse(&tenant.created_at)?,
            name: tenant.name,
            id: tenant.id,
            timelines: rows,
        };
        catalog.write(move |catalog| rebuild::add(catalog, &tenant)).await?;
    }
    Ok(count)
}
