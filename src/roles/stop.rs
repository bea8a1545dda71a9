//! When a role stops: on Ctrl-C, on SIGTERM, and for a compute when its control plane is gone.

use std::io::Read;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use crate::failure::Failure;

/// Ctrl-C and SIGTERM, listened for from now on.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Listens; the signals no longer end the process by themselves.
    pub fn listen() -> Result<StopSignals, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(format!("signals cannot be heard: {error}")))
        };
        Ok(StopSignals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits for the end of standard input. A thread reads it: a read of it cannot be called off.
pub async fn stdin_end() {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let mut ignored = [0; 64];
        // An error is an end too.
        while std::io::stdin().read(&mut ignored).is_ok_and(|bytes| bytes > 0) {}
        // Nobody waits any more where the role has stopped meanwhile.
        let _heard = ended.send(());
    });
    // An error means that the thread is gone, and with it whatever could be read.
    let _ended = end.await;
}
