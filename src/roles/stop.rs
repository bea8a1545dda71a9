//! When a role stops: on Ctrl-C, on SIGTERM, and for a compute when its control plane is gone.

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
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

/// The lines of standard input, and its end. A thread reads it: a read of it cannot be called off.
pub fn stdin_lines() -> (mpsc::UnboundedReceiver<String>, oneshot::Receiver<()>) {
    let (ended, end) = oneshot::channel();
    let (sender, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        // An error is an end too.
        for line in std::io::stdin().lines().map_while(Result::ok) {
            // Nobody takes them where nothing is expected but the end.
            let _taken = sender.send(line);
        }
        // Nobody waits any more where the role has stopped meanwhile.
        let _heard = ended.send(());
    });
    (lines, end)
}
