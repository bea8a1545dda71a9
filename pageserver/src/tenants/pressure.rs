//! Open layers of many timelines share one memory: where it fills, the largest are written.

use std::{sync::Arc, time::Duration};

use super::Tenants;
use crate::{
    open_layers::{to_write, with_object},
    timeline::Timeline,
};

/// The shortest time between two looks: what is being written counts until it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

impl Tenants {
    /// Has open layers written while they take too much memory together.
    pub(super) async fn relieve_all(self: Arc<Self>) {
        loop {
            self.engine.open_layers.pressed().await;
            self.relieve();
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn relieve(&self) {
        let mut timelines = self.loaded();
        let may_write = |timeline: &Arc<Timeline>| {
            !timeline.is_read_only() && !timeline.is_fenced() && !timeline.is_warming()
        };
        timelines.retain(may_write);
        let frozen = timelines.iter().map(|timeline| with_object(timeline.frozen_bytes()));
        let waiting: usize = frozen.sum();
        let excess = self.engine.open_layers.excess().saturating_sub(waiting);
        let open = timelines.iter().map(|timeline| with_object(timeline.open_bytes()));
        let open: Vec<usize> = open.collect();
        let chosen = to_write(&open, excess);
        chosen
            .into_iter()
            .filter_map(|place| timelines.get(place))
            .for_each(|timeline| timeline.freeze_now());
    }
}
