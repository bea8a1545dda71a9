//! Memory that serves again. A full layer takes some ten thousand pages of it and gives them back within
//! a second: had from the system each time, they would be a good part of what ingest costs.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes of a slab that serves again.
pub const SLAB_BYTES: usize = if cfg!(test) { 512 } else { 1 << 20 };
/// The most bytes that wait to serve again.
const SPARE_BYTES_MAX: usize = 128 << 20;
/// While one object is stored, the next is made.
const OBJECTS_MAX: usize = 2;

/// What waits to serve again.
#[derive(Default)]
pub struct Spare {
    bytes_max: usize,
    slabs: Mutex<Vec<Box<[u8]>>>,
    /// The largest objects that were written, the largest behind; not larger than all slabs may be.
    objects: Mutex<Vec<Vec<u8>>>,
}

/// Memory that is given back when it is dropped.
pub struct Slab {
    bytes: Box<[u8]>,
    spare: Arc<Spare>,
}

impl Spare {
    /// Nothing yet, and at most about so many bytes of slabs, and as many of objects.
    pub fn new(bytes_max: usize) -> Spare {
        Spare { bytes_max: bytes_max.min(SPARE_BYTES_MAX), ..Spare::default() }
    }

    /// So many bytes, whatever is in them: [`SLAB_BYTES`] of them serve again.
    pub fn slab(self: &Arc<Self>, bytes: usize) -> Slab {
        let spare = (bytes == SLAB_BYTES).then(|| self.slabs.lock().pop()).flatten();
        let bytes = spare.unwrap_or_else(|| vec![0; bytes].into());
        Slab { bytes, spare: Arc::clone(self) }
    }

    /// An empty buffer for an object.
    pub fn buffer(&self) -> Vec<u8> {
        self.objects.lock().pop().unwrap_or_default()
    }

    /// Takes the memory of an object, where nobody else holds it.
    pub fn give_object(&self, object: Bytes) {
        let Ok(object) = object.try_into_mut() else { return };
        let mut object = Vec::from(object);
        if object.capacity() > self.bytes_max {
            return;
        }
        object.clear();
        let mut objects = self.objects.lock();
        let behind = objects.partition_point(|other| other.capacity() < object.capacity());
        objects.insert(behind, object);
        let bytes = |objects: &[Vec<u8>]| objects.iter().map(Vec::capacity).sum::<usize>();
        while objects.len() > OBJECTS_MAX || bytes(&objects) > self.bytes_max {
            objects.remove(0);
        }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if self.bytes.len() != SLAB_BYTES {
            return;
        }
        let mut slabs = self.spare.slabs.lock();
        if (slabs.len() + 1) * SLAB_BYTES <= self.spare.bytes_max {
            slabs.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Deref for Slab {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Slab {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_serves_again_as_far_as_there_is_room() {
        let spare = Arc::new(Spare::new(2 * SLAB_BYTES));
        let mut slabs: Vec<Slab> = (0..3).map(|_| spare.slab(SLAB_BYTES)).collect();
        slabs.iter_mut().for_each(|slab| slab[0] = 7);
        slabs.push(spare.slab(100));
        drop(slabs);
        let again: Vec<Slab> = (0..3).map(|_| spare.slab(SLAB_BYTES)).collect();
        assert_eq!(again.iter().filter(|slab| slab[0] == 7).count(), 2);
    }

    #[test]
    fn the_memory_of_the_largest_objects_serves_again() {
        let spare = Spare::new(1000);
        for bytes in [10, 100, 50, 2000, 70] {
            spare.give_object(Bytes::from(Vec::with_capacity(bytes)));
            spare.give_object(Bytes::from(vec![7; bytes]));
        }
        let held = Bytes::from(vec![7; 500]);
        let holder = held.clone();
        spare.give_object(held);
        assert_eq!(holder.len(), 500);
        let buffers = [(); 3].map(|()| spare.buffer());
        assert!(buffers.iter().all(Vec::is_empty));
        assert_eq!(buffers.map(|buffer| buffer.capacity()), [100, 100, 0]);
    }
}
