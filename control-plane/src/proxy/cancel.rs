//! Which backend a cancel request means.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{startup::CancelKey, way::Way};

/// How long a backend may take to accept a cancel request.
const FORWARD_MAX: Duration = Duration::from_secs(10);

/// Bytes of a secret in protocol 3.0.
const SECRET_BYTES: usize = 4;

/// The keys of all sessions. The client has its backend's key, so that `pg_backend_pid()` is what
/// the client believes it to be; only where two computes gave out the same one, the later client
/// gets another secret.
#[derive(Default)]
pub(crate) struct Cancels {
    sessions: Arc<Mutex<HashMap<CancelKey, Target>>>,
}

#[derive(Clone)]
struct Target {
    way: Way,
    key: CancelKey,
}

/// A session that can be cancelled for as long as this value lives.
pub(crate) struct Registered {
    sessions: Arc<Mutex<HashMap<CancelKey, Target>>>,
    /// What the client is told.
    pub key: CancelKey,
}

impl Cancels {
    /// Takes a session up. `random` gives another secret, where the backend's is taken.
    pub(crate) fn register(
        &self,
        way: Way,
        key: CancelKey,
        mut random: impl FnMut() -> [u8; SECRET_BYTES],
    ) -> Registered {
        let target = Target { way, key: key.clone() };
        let mut shown = key;
        let mut sessions = self.sessions.lock();
        loop {
            if let Entry::Vacant(place) = sessions.entry(shown.clone()) {
                place.insert(target);
                break;
            }
            shown.secret = random().to_vec();
        }
        Registered { sessions: self.sessions.clone(), key: shown }
    }

    /// Passes a request on to the backend that it means. It is over when the backend has closed the
    /// connection, which it does after the signal was sent. A key that nobody has changes nothing.
    pub(crate) async fn forward(&self, key: &CancelKey) -> std::io::Result<()> {
        let target = self.sessions.lock().get(key).cloned();
        let Some(target) = target else { return Ok(()) };
        let forwarded = async {
            let mut backend = target.way.connect().await?;
            backend.write_all(&target.key.request()).await?;
            // The backend says nothing.
            backend.read_u8().await.map(drop).or(Ok(()))
        };
        timeout(FORWARD_MAX, forwarded).await?
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_computes_that_gave_out_the_same_key_are_told_apart() {
        let cancels = Cancels::default();
        let key = CancelKey { process: 7, secret: vec![1; 4] };
        let way = |port| Way::socket("/socket".as_ref(), port);
        let first = cancels.register(way(1), key.clone(), || [2; 4]);
        let mut secrets = [[1; 4], [3; 4]].into_iter();
        let second = cancels.register(way(2), key.clone(), || secrets.next().unwrap_or_default());
        assert_eq!((&first.key, second.key.process), (&key, 7));
        assert_eq!(second.key.secret, [3; 4]);
        let to =
            |key: &CancelKey| cancels.sessions.lock().get(key).map(|target| target.way.clone());
        assert_eq!((to(&first.key), to(&second.key)), (Some(way(1)), Some(way(2))));
        drop(first);
        assert_eq!(to(&key), None, "a session that is over can be cancelled");
    }
}
