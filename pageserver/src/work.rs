//! Timelines that wait for background work: in the order in which they asked, each once.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::timeline::Timeline;

/// The queue. One worker of the process takes from it.
pub struct Work {
    wanted: mpsc::UnboundedSender<Weak<Timeline>>,
    queue: Mutex<Option<mpsc::UnboundedReceiver<Weak<Timeline>>>>,
    has_worker: AtomicBool,
}

impl Default for Work {
    fn default() -> Work {
        let (wanted, queue) = mpsc::unbounded_channel();
        Work { wanted, queue: Mutex::new(Some(queue)), has_worker: AtomicBool::new(false) }
    }
}

impl Work {
    /// Adds a timeline, which must not be in the queue: so it is bounded by their number.
    pub fn want(&self, timeline: &Arc<Timeline>) {
        // Where the worker has ended, the process does.
        let _ = self.wanted.send(Arc::downgrade(timeline));
    }

    /// The queue, for the worker; `None` where there is one already.
    pub fn begin(&self) -> Option<mpsc::UnboundedReceiver<Weak<Timeline>>> {
        let queue = self.queue.lock().take();
        self.has_worker.fetch_or(queue.is_some(), Ordering::Relaxed);
        queue
    }

    /// Whether there is a worker: where not, nobody may wait for it.
    pub fn has_worker(&self) -> bool {
        self.has_worker.load(Ordering::Relaxed)
    }
}
