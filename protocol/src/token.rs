//! What a token says, and what it is good for. Who signs and who checks it, this crate does not know.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::TenantId;

/// The longest token that is taken from the network.
pub const TOKEN_BYTES_MAX: usize = 1024;

/// A token as it is shown: a secret, which its `Debug` does not tell.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// A token of this text.
    pub fn new(text: String) -> Token {
        Token(text)
    }

    /// The text.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What a token is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The timelines of one tenant: a compute has this.
    Tenant(TenantId),
    /// All timelines, and what servers tell each other: pageservers and safekeepers have this.
    Peer,
    /// Everything.
    Operator,
}

/// What somebody wants who shows a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// To read and write timelines of this tenant.
    Timeline(TenantId),
    /// To change what servers agree on among each other.
    Peer,
    /// To see and change everything that a server has.
    Operate,
}

impl Scope {
    /// Whether it is good for that.
    pub fn gives(self, right: Right) -> bool {
        match (self, right) {
            (Scope::Operator, _) => true,
            (Scope::Peer, Right::Timeline(_) | Right::Peer) => true,
            (Scope::Tenant(own), Right::Timeline(asked)) => own == asked,
            (Scope::Peer, Right::Operate) => false,
            (Scope::Tenant(_), Right::Peer | Right::Operate) => false,
        }
    }
}
