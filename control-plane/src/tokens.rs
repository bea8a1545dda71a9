//! Tokens: those that its computes are brought, its own, and whose it takes.

use std::time::{Duration, SystemTime};

use access::{Bearer, Guard, PublicKeys, SigningKey};
use protocol::{
    TenantId,
    token::{Scope, Token},
};

use crate::metrics::note_refused;

/// What a control plane signs tokens with.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The key.
    pub key: SigningKey,
    /// Further keys whose tokens it takes, while keys are exchanged.
    pub accepted: PublicKeys,
    /// How long a compute's token is good; it is brought a newer one after half of that.
    pub compute_life: Duration,
}

impl Tokens {
    /// Who may come in by the HTTP API.
    pub(crate) fn guard(tokens: Option<&Tokens>) -> Guard {
        let keys = tokens.map(|tokens| tokens.key.public().clone().and(tokens.accepted.clone()));
        keys.map_or_else(Guard::open, |keys| Guard::new(keys, note_refused))
    }

    /// What pageservers are shown.
    pub(crate) fn bearer(tokens: Option<&Tokens>) -> Bearer {
        let signs = |tokens: &Tokens| Bearer::signs(&tokens.key, Scope::Operator);
        tokens.map_or(Bearer::nobody(), signs)
    }

    /// What a compute of this tenant is brought.
    pub(crate) fn for_compute(&self, tenant: TenantId) -> ComputeTokens {
        ComputeTokens { key: self.key.clone(), tenant, life: self.compute_life }
    }
}

/// The tokens of one compute.
pub(crate) struct ComputeTokens {
    key: SigningKey,
    tenant: TenantId,
    life: Duration,
}

impl ComputeTokens {
    /// A new one.
    pub(crate) fn next(&self) -> Token {
        self.key.sign(Scope::Tenant(self.tenant), SystemTime::now(), self.life)
    }

    /// How long it is the newest.
    pub(crate) fn pause(&self) -> Duration {
        self.life / 2
    }
}
