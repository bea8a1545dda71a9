//! What a server lets in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use protocol::token::{Right, TOKEN_BYTES_MAX, Token};

use crate::PublicKeys;

/// Stands for "for ever" in [`Admission`].
const FOR_EVER: u64 = u64::MAX;

/// Why somebody is not let in. The server's log and metrics say it; who asks is told that there is
/// nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denied {
    /// No token was shown.
    #[error("no token")]
    NoToken,
    /// None of the keys has signed it, or it is no token at all.
    #[error("a token that no known key has signed")]
    NotSigned,
    /// It has ended.
    #[error("a token that has ended")]
    Expired,
    /// It is for something else.
    #[error("a token for something else")]
    Foreign,
}

impl Denied {
    /// All of them.
    pub const ALL: [Denied; 4] =
        [Denied::NoToken, Denied::NotSigned, Denied::Expired, Denied::Foreign];

    /// The reason in a word, for a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Denied::NoToken => "none",
            Denied::NotSigned => "not_signed",
            Denied::Expired => "expired",
            Denied::Foreign => "foreign",
        }
    }
}

/// What a server lets in by: the public keys, or nothing where the operator said so.
#[derive(Clone)]
pub struct Guard {
    keys: Option<Arc<PublicKeys>>,
    note: fn(door: &'static str, Denied),
}

impl Guard {
    /// Lets in who shows a token of one of these keys. Whom it does not let in, it tells `note`, with
    /// the name of the door.
    pub fn new(keys: PublicKeys, note: fn(&'static str, Denied)) -> Guard {
        Guard { keys: Some(Arc::new(keys)), note }
    }

    /// Lets everybody in.
    pub fn open() -> Guard {
        Guard { keys: None, note: |_, _| {} }
    }

    /// The same, telling this `note`.
    #[must_use]
    pub fn noting(self, note: fn(&'static str, Denied)) -> Guard {
        Guard { note, ..self }
    }

    /// Lets somebody in by this door who wants this.
    pub fn admit(
        &self,
        door: &'static str,
        token: Option<&Token>,
        right: Right,
    ) -> Result<Admission, Denied> {
        let left = self.check(token, right).inspect_err(|denied| (self.note)(door, *denied))?;
        let (guard, since, until) = (self.clone(), Instant::now(), AtomicU64::new(0));
        let admission = Admission { guard, door, right, since, until };
        admission.extend(left);
        Ok(admission)
    }

    fn check(&self, token: Option<&Token>, right: Right) -> Result<Option<Duration>, Denied> {
        let Some(keys) = &self.keys else { return Ok(None) };
        let token = token.ok_or(Denied::NoToken)?;
        if token.secret().len() > TOKEN_BYTES_MAX {
            return Err(Denied::NotSigned);
        }
        let (scope, left) = keys.verify(token, SystemTime::now())?;
        if scope.gives(right) { Ok(Some(left)) } else { Err(Denied::Foreign) }
    }
}

/// Somebody who was let in, and until when: a comparison for each request.
pub struct Admission {
    guard: Guard,
    door: &'static str,
    right: Right,
    since: Instant,
    /// Milliseconds after `since`.
    until: AtomicU64,
}

impl Admission {
    /// Lets somebody go on who shows a newer token.
    pub fn renew(&self, token: &Token) -> Result<(), Denied> {
        let left = self.guard.check(Some(token), self.right);
        self.extend(left.inspect_err(|denied| (self.guard.note)(self.door, *denied))?);
        Ok(())
    }

    /// Whether somebody may go on; one whose token has ended may not.
    pub fn check(&self) -> Result<(), Denied> {
        if self.holds(Instant::now()) {
            return Ok(());
        }
        (self.guard.note)(self.door, Denied::Expired);
        Err(Denied::Expired)
    }

    /// Whether it has not ended at this moment.
    pub fn holds(&self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since).as_millis();
        passed < u128::from(self.until.load(Ordering::Relaxed))
    }

    fn extend(&self, left: Option<Duration>) {
        let until = left.map_or(FOR_EVER, |left| {
            u64::try_from((self.since.elapsed() + left).as_millis()).unwrap_or(FOR_EVER)
        });
        // An older token that comes late takes nothing away.
        self.until.fetch_max(until, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use protocol::{TenantId, token::Scope};

    use super::*;
    use crate::SigningKey;

    #[test]
    fn a_tenants_token_opens_its_own_doors_alone() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let key = SigningKey::make(&folder.path().join("key"))?;
        let guard = Guard::new(key.public().clone(), |_, _| {});
        let [ours, theirs] = [1, 2].map(TenantId::from_bits);
        let sign = |scope| key.sign(scope, SystemTime::now(), Duration::from_secs(60));
        let rights = [Right::Timeline(ours), Right::Timeline(theirs), Right::Peer, Right::Operate];
        let cases = [
            (Scope::Tenant(ours), [true, false, false, false]),
            (Scope::Peer, [true, true, true, false]),
            (Scope::Operator, [true, true, true, true]),
        ];
        for (scope, expected) in cases {
            let token = sign(scope);
            let given = rights.map(|right| guard.admit("test", Some(&token), right).is_ok());
            assert_eq!(given, expected, "{scope:?}");
        }
        for right in rights {
            assert_eq!(guard.admit("test", None, right).err(), Some(Denied::NoToken));
            assert!(Guard::open().admit("test", None, right).is_ok());
        }
        Ok(())
    }

    #[test]
    fn an_admission_ends_with_its_token_unless_a_newer_one_is_shown() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let key = SigningKey::make(&folder.path().join("key"))?;
        let guard = Guard::new(key.public().clone(), |_, _| {});
        let (right, scope) = (Right::Peer, Scope::Peer);
        let sign = |seconds| key.sign(scope, SystemTime::now(), Duration::from_secs(seconds));
        let admission = guard.admit("test", Some(&sign(60)), right)?;
        let now = Instant::now();
        assert!(admission.holds(now + Duration::from_secs(50)));
        assert!(!admission.holds(now + Duration::from_secs(61)));
        admission.renew(&sign(600))?;
        assert!(admission.holds(now + Duration::from_secs(500)));
        admission.renew(&sign(60))?;
        assert!(admission.holds(now + Duration::from_secs(500)), "an older token took time away");
        let foreign = key.sign(
            Scope::Tenant(TenantId::from_bits(1)),
            SystemTime::now(),
            Duration::from_secs(6000),
        );
        assert_eq!(admission.renew(&foreign), Err(Denied::Foreign));
        assert!(!admission.holds(now + Duration::from_secs(700)));
        Ok(())
    }
}
