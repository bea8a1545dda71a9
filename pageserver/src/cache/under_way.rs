//! Reads that have not come back yet, so that no part is read twice at a time.

use std::{collections::HashMap, sync::Arc};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Cache, CacheKey};
use crate::{error::Error, layer::reader::Cached};

/// What all that wait for a read get: its values, in its order.
type Answer = Result<Arc<Vec<Cached>>, Error>;
type Read = Shared<BoxFuture<'static, Answer>>;

/// For each part that is being read, the read, and the part's place in what it brings.
#[derive(Default)]
pub struct UnderWay {
    reads: Mutex<HashMap<CacheKey, (Read, usize)>>,
}

impl Cache {
    /// The values of the keys at these positions, each with its position.
    pub(super) async fn read_missing<R>(
        self: &Arc<Cache>,
        keys: &[CacheKey],
        missing: Vec<usize>,
        read: impl FnOnce(Vec<usize>) -> R,
    ) -> Result<Vec<(usize, Cached)>, Error>
    where
        R: Future<Output = Result<Vec<(Cached, usize)>, Error>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let mut values = Vec::with_capacity(missing.len());
        let mut waits = Vec::new();
        let mut own = Vec::new();
        {
            let mut reads = self.under_way.reads.lock();
            let new: Read =
                async move { answered.await.unwrap_or(Err(Error::ShuttingDown)) }.boxed().shared();
            for at in missing {
                if let Some((read, place)) = reads.get(&keys[at]) {
                    waits.push((at, read.clone(), *place));
                } else if let Some(value) = self.get(keys[at]) {
                    // It came back since the caller looked.
                    values.push((at, value));
                } else {
                    waits.push((at, new.clone(), own.len()));
                    reads.insert(keys[at], (new.clone(), own.len()));
                    own.push(at);
                }
            }
        }
        if !own.is_empty() {
            let end = End { cache: self.clone(), keys: own.iter().map(|at| keys[*at]).collect() };
            let read = read(own);
            // A task of its own: others wait for it, too.
            tokio::spawn(async move {
                let read = read.await.map(|values| end.keep(values));
                drop(end);
                // Where nobody waits any more, the values are in memory all the same.
                let _heard = answer.send(read);
            });
        }
        for (at, read, place) in waits {
            values.push((at, read.await?[place].clone()));
        }
        Ok(values)
    }
}

/// Ends a read, however it goes: whoever comes later begins anew.
struct End {
    cache: Arc<Cache>,
    keys: Vec<CacheKey>,
}

impl End {
    fn keep(&self, values: Vec<(Cached, usize)>) -> Arc<Vec<Cached>> {
        assert_eq!(values.len(), self.keys.len(), "a value is read for each key");
        let kept = self.keys.iter().zip(values).map(|(key, (value, bytes))| {
            self.cache.insert(*key, value.clone(), bytes);
            value
        });
        Arc::new(kept.collect())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut reads = self.cache.under_way.reads.lock();
        for key in &self.keys {
            reads.remove(key);
        }
    }
}
