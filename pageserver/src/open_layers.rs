//! The memory of all layers that are not in the object store yet: the open ones, the frozen ones
//! that wait to be written, and beside a frozen one its finished object, for which there is room
//! from the beginning.
//!
//! Above the soft bound, which is half of it all, the largest open layers are frozen and written.
//! Above the bound ingest waits. Each layer counts its bytes in here with a [`Charge`], which ends
//! with the layer: nothing is counted that is not there.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use crate::spare::Spare;

/// What waits to serve again comes on top: at most one in so many bytes, and as much of objects.
const SPARE_PART: usize = 16;

/// What open and frozen layers take together.
pub struct OpenLayers {
    bytes: AtomicUsize,
    bytes_max: usize,
    /// Wakes whoever freezes layers.
    pressed: Notify,
    /// Wakes ingest.
    room: Notify,
    /// Memory of layers that are gone.
    spare: Arc<Spare>,
    /// It was said that ingest waits, and there has not been much room since.
    has_said: AtomicBool,
}

impl OpenLayers {
    /// Nothing yet, of at most about so many bytes: each timeline may exceed it by what it
    /// applies at once, some 64 KiB or one record.
    pub fn new(bytes_max: usize) -> OpenLayers {
        OpenLayers {
            bytes: AtomicUsize::new(0),
            bytes_max,
            pressed: Notify::new(),
            room: Notify::new(),
            spare: Arc::new(Spare::new(bytes_max / SPARE_PART)),
            has_said: AtomicBool::new(false),
        }
    }

    /// Bytes of memory now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The most bytes.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether ingest has to wait.
    pub fn is_full(&self) -> bool {
        self.bytes() >= self.bytes_max
    }

    /// How many bytes have to be written.
    pub fn excess(&self) -> usize {
        self.bytes().saturating_sub(self.soft_max())
    }

    /// The memory that serves again.
    pub fn spare(&self) -> &Arc<Spare> {
        &self.spare
    }

    /// Waits until layers have to be written.
    pub async fn pressed(&self) {
        self.pressed.notified().await;
    }

    /// Completes when there may be room again; to be made before [`OpenLayers::is_full`] is asked.
    pub fn room(&self) -> tokio::sync::futures::Notified<'_> {
        self.room.notified()
    }

    fn soft_max(&self) -> usize {
        self.bytes_max / 2
    }

    fn add(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let now = before + bytes;
        if now > self.soft_max() {
            self.pressed.notify_one();
        }
        if now >= self.bytes_max && !self.has_said.swap(true, Ordering::Relaxed) {
            let bytes_max = self.bytes_max;
            tracing::warn!(bytes = now, bytes_max, "ingest waits: open layers fill their memory");
        }
    }

    fn remove(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let now = before - bytes;
        if before >= self.bytes_max && now < self.bytes_max {
            self.room.notify_waiters();
        }
        if now <= self.soft_max() {
            self.has_said.store(false, Ordering::Relaxed);
        }
    }
}

/// What a layer of so many bytes takes with its object, which is compressed: half of it is more than
/// WAL comes to, unless it is of noise.
pub fn with_object(layer_bytes: usize) -> usize {
    layer_bytes + layer_bytes / 2
}

/// A layer's part.
pub struct Charge {
    of: Arc<OpenLayers>,
    bytes: usize,
}

impl Charge {
    /// Nothing yet.
    pub fn new(of: Arc<OpenLayers>) -> Charge {
        Charge { of, bytes: 0 }
    }

    /// Nothing yet of another layer.
    pub fn next(&self) -> Charge {
        Charge::new(self.of.clone())
    }

    /// Where the layer's memory comes from.
    pub fn spare(&self) -> &Arc<Spare> {
        self.of.spare()
    }

    /// The layer has grown to so many bytes.
    pub fn grow_to(&mut self, bytes: usize) {
        self.of.add(bytes.saturating_sub(self.bytes));
        self.bytes = self.bytes.max(bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.of.remove(self.bytes);
    }
}

/// Which open layers to write, of these bytes, so that `excess` bytes go: the largest first, since
/// many small layers cost more to write and to read than few large ones. Those that are too small
/// to matter are left to their age.
pub fn to_write(open: &[usize], excess: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..open.len()).filter(|place| open[*place] > 0).collect();
    places.sort_by_key(|place| std::cmp::Reverse(open[*place]));
    let mut left = excess;
    let needed = |place: &usize| {
        let is_needed = left > 0;
        left = left.saturating_sub(open[*place]);
        is_needed
    };
    places.into_iter().take_while(needed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_layers_are_written_until_the_excess_is_gone() {
        assert_eq!(to_write(&[10, 0, 30, 20], 0), [] as [usize; 0]);
        assert_eq!(to_write(&[10, 0, 30, 20], 30), [2]);
        assert_eq!(to_write(&[10, 0, 30, 20], 31), [2, 3]);
        assert_eq!(to_write(&[10, 0, 30, 20], 1000), [2, 3, 0]);
    }

    #[test]
    fn what_is_counted_ends_with_its_layers() {
        let layers = Arc::new(OpenLayers::new(100));
        let (mut one, mut two) = (Charge::new(layers.clone()), Charge::new(layers.clone()));
        one.grow_to(30);
        two.grow_to(60);
        one.grow_to(40);
        assert_eq!((layers.bytes(), layers.excess(), layers.is_full()), (100, 50, true));
        drop(two);
        assert_eq!((layers.bytes(), layers.excess(), layers.is_full()), (40, 0, false));
        drop(one);
        assert_eq!(layers.bytes(), 0);
    }
}
