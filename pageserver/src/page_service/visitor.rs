//! Who is connected, and for how long.

use access::{Admission, Guard};
use protocol::{
    TenantTimeline,
    page_service::{Hello, PageError},
    token::{Right, Token},
};

use crate::error::Error;

/// The door's name in logs and metrics.
const DOOR: &str = "pages";

/// Somebody who was let in for one timeline.
pub(super) struct Visitor {
    timeline: TenantTimeline,
    admission: Admission,
}

impl Visitor {
    /// Lets somebody in. Who has no token for the tenant is told that there is none.
    pub fn admit(guard: &Guard, hello: &Hello) -> Result<Visitor, PageError> {
        let timeline = hello.timeline;
        let admitted = guard.admit(DOOR, hello.token.as_ref(), Right::Timeline(timeline.tenant));
        let admission = admitted.map_err(|_| nothing(timeline))?;
        Ok(Visitor { timeline, admission })
    }

    /// Refuses whose token has ended.
    pub fn check(&self) -> Result<(), PageError> {
        self.admission.check().map_err(|_| nothing(self.timeline))
    }

    /// Lets somebody go on who shows a newer token.
    pub fn renew(&self, token: &Token) -> Result<(), PageError> {
        self.admission.renew(token).map_err(|_| nothing(self.timeline))
    }
}

/// What is said of a tenant that there is not.
fn nothing(timeline: TenantTimeline) -> PageError {
    Error::no_tenant(timeline.tenant).into()
}
