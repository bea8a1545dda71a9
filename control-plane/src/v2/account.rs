//! Whom the API belongs to: one account, whose keys see every project. Clients ask for it first.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    context::Context,
    error::{ApiError, GeneralError},
    request::{Body, Path},
    time,
};
use crate::catalog::api_keys;

/// The account's id.
pub(super) const ACCOUNT_ID: &str = "offshoot";

/// The account.
#[derive(Serialize, ToSchema)]
pub struct Account {
    id: String,
    login: String,
    name: String,
    last_name: String,
    email: String,
    image: String,
    plan: String,
    auth_accounts: Vec<String>,
    billing_account: BillingAccount,
    /// -1: as many as the machine bears.
    projects_limit: i64,
    /// -1: as many as the machine bears.
    branches_limit: i64,
    /// -1: as large as the machine bears.
    max_autoscaling_limit: f64,
    /// 0: not limited.
    active_seconds_limit: i64,
}

/// Nothing is billed; clients demand the fields.
#[derive(Serialize, ToSchema)]
pub struct BillingAccount {
    state: String,
    payment_source: PaymentSource,
    subscription_type: String,
    payment_method: String,
    quota_reset_at_last: String,
    name: String,
    email: String,
    address_city: String,
    address_country: String,
    address_line1: String,
    address_line2: String,
    address_postal_code: String,
    address_state: String,
}

/// Nothing is billed.
#[derive(Serialize, ToSchema)]
pub struct PaymentSource {
    #[serde(rename = "type")]
    kind: String,
}

impl BillingAccount {
    fn none() -> BillingAccount {
        BillingAccount {
            state: "active".to_owned(),
            payment_source: PaymentSource { kind: "none".to_owned() },
            subscription_type: "UNKNOWN".to_owned(),
            payment_method: "none".to_owned(),
            quota_reset_at_last: time::format(0),
            name: ACCOUNT_ID.to_owned(),
            email: String::new(),
            address_city: String::new(),
            address_country: String::new(),
            address_line1: String::new(),
            address_line2: String::new(),
            address_postal_code: String::new(),
            address_state: String::new(),
        }
    }
}

/// Organizations: none.
#[derive(Serialize, ToSchema)]
pub struct Organizations {
    organizations: Vec<String>,
}

/// Where projects can be.
#[derive(Serialize, ToSchema)]
pub struct Regions {
    regions: Vec<Region>,
}

/// Where projects can be.
#[derive(Serialize, ToSchema)]
pub struct Region {
    region_id: String,
    name: String,
    /// Projects that ask for none are in this one.
    default: bool,
    /// It answers: where it does not, what its projects are is known, and they cannot be used.
    available: bool,
    geo_lat: String,
    geo_long: String,
}

/// A key, without itself.
#[derive(Serialize, ToSchema)]
pub struct ApiKey {
    id: i64,
    name: String,
    created_at: String,
    created_by: Creator,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<String>,
    /// Not kept: empty.
    last_used_from_addr: String,
}

/// Who made a key.
#[derive(Serialize, ToSchema)]
pub struct Creator {
    id: String,
    name: String,
    image: String,
}

/// `POST /api_keys`
#[derive(serde::Deserialize, ToSchema)]
pub struct CreateApiKey {
    /// What it is for.
    key_name: String,
}

/// A new key. It is shown this once.
#[derive(Serialize, ToSchema)]
pub struct NewApiKey {
    id: i64,
    key: String,
    name: String,
    created_at: String,
    created_by: String,
}

/// A key that is no more.
#[derive(Serialize, ToSchema)]
pub struct RevokedApiKey {
    id: i64,
    name: String,
    created_at: String,
    created_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<String>,
    /// Not kept: empty.
    last_used_from_addr: String,
    revoked: bool,
}

/// Show the account.
#[utoipa::path(get, path = "/users/me", tag = "account",
    responses((status = 200, body = Account), (status = "default", body = GeneralError)))]
pub(super) async fn me() -> Json<Account> {
    let name = || ACCOUNT_ID.to_owned();
    Json(Account {
        id: name(),
        login: name(),
        name: name(),
        last_name: String::new(),
        email: String::new(),
        image: String::new(),
        plan: name(),
        auth_accounts: Vec::new(),
        billing_account: BillingAccount::none(),
        projects_limit: -1,
        branches_limit: -1,
        max_autoscaling_limit: -1.0,
        active_seconds_limit: 0,
    })
}

/// List the account's organizations: it has none.
#[utoipa::path(get, path = "/users/me/organizations", tag = "account",
    responses((status = 200, body = Organizations), (status = "default", body = GeneralError)))]
pub(super) async fn organizations() -> Json<Organizations> {
    Json(Organizations { organizations: Vec::new() })
}

/// List the regions.
#[utoipa::path(get, path = "/regions", tag = "account",
    responses((status = 200, body = Regions), (status = "default", body = GeneralError)))]
pub(super) async fn regions(State(context): State<Arc<Context>>) -> Json<Regions> {
    let view = |region: &Arc<crate::Region>| Region {
        region_id: region.id.to_string(),
        name: region.name.clone(),
        default: Arc::ptr_eq(region, context.regions.default()),
        available: region.health.answers(),
        geo_lat: String::new(),
        geo_long: String::new(),
    };
    Json(Regions { regions: context.regions.all().iter().map(view).collect() })
}

/// List the API keys.
#[utoipa::path(get, path = "/api_keys", tag = "api keys",
    responses((status = 200, body = Vec<ApiKey>), (status = "default", body = GeneralError)))]
pub(super) async fn list_keys(
    State(context): State<Arc<Context>>,
) -> Result<Json<Vec<ApiKey>>, ApiError> {
    let keys = context.catalog.read(api_keys::list).await?;
    let view = |key: api_keys::ApiKey| ApiKey {
        id: key.id,
        name: key.name,
        created_at: time::format(key.created_at),
        created_by: Creator {
            id: ACCOUNT_ID.to_owned(),
            name: ACCOUNT_ID.to_owned(),
            image: String::new(),
        },
        last_used_at: key.last_used_at.map(time::format),
        last_used_from_addr: String::new(),
    };
    Ok(Json(keys.into_iter().map(view).collect()))
}

/// Make an API key.
#[utoipa::path(post, path = "/api_keys", tag = "api keys", request_body = CreateApiKey,
    responses((status = 200, body = NewApiKey), (status = "default", body = GeneralError)))]
pub(super) async fn create_key(
    State(context): State<Arc<Context>>,
    Body(CreateApiKey { key_name }): Body<CreateApiKey>,
) -> Result<Json<NewApiKey>, ApiError> {
    super::names::check_name("API key", &key_name)?;
    let key = super::auth::new_key();
    let hash = api_keys::hash(&key);
    let written = context
        .catalog
        .write(move |catalog| api_keys::insert(catalog, &key_name, &hash, time::now()));
    let row = written.await?;
    context.keys.add(hash, row.id);
    Ok(Json(NewApiKey {
        id: row.id,
        key,
        name: row.name,
        created_at: time::format(row.created_at),
        created_by: ACCOUNT_ID.to_owned(),
    }))
}

/// Revoke an API key. It is refused from now on.
#[utoipa::path(delete, path = "/api_keys/{key_id}", tag = "api keys",
    params(("key_id" = i64, Path)),
    responses((status = 200, body = RevokedApiKey), (status = "default", body = GeneralError)))]
pub(super) async fn revoke_key(
    State(context): State<Arc<Context>>,
    Path(id): Path<i64>,
) -> Result<Json<RevokedApiKey>, ApiError> {
    let row = context.catalog.write(move |catalog| api_keys::remove(catalog, id)).await?;
    context.keys.remove(id);
    Ok(Json(RevokedApiKey {
        id: row.id,
        name: row.name,
        created_at: time::format(row.created_at),
        created_by: ACCOUNT_ID.to_owned(),
        last_used_at: row.last_used_at.map(time::format),
        last_used_from_addr: String::new(),
        revoked: true,
    }))
}
