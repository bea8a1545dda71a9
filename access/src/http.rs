//! The HTTP APIs for operators: who shows no operator's token finds nothing there.

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, Uri, header::AUTHORIZATION},
    middleware::{self, Next},
    response::Response,
};
use protocol::token::{Right, Token};

use crate::Guard;

/// What an API says where it has nothing.
pub type Nothing = fn(&Uri) -> Response;

#[derive(Clone)]
struct Door {
    guard: Guard,
    name: &'static str,
    nothing: Nothing,
}

/// Lets operators alone reach what these routes, and whatever else the router does, answer. To all
/// others `nothing` is said, as for a path that there is not.
pub fn operators_only(
    router: Router,
    guard: Guard,
    name: &'static str,
    nothing: Nothing,
) -> Router {
    let door = Door { guard, name, nothing };
    router.layer(middleware::from_fn_with_state(door, check))
}

async fn check(State(door): State<Door>, request: Request, next: Next) -> Response {
    let token = bearer(request.headers());
    match door.guard.admit(door.name, token.as_ref(), Right::Operate) {
        Ok(_) => next.run(request).await,
        Err(_) => (door.nothing)(request.uri()),
    }
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750).
fn bearer(headers: &HeaderMap) -> Option<Token> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Token::new(token.trim().to_owned()))
}
