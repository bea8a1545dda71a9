//! Whether a region's pageservers answer: looked at all the time, so that no request waits for long
//! where nobody would answer it.
//!
//! A server that was stopped in the middle still takes connections, and says nothing. Requests go on
//! being tried while a region is silent, but end soon, with a sentence that names it; those that were
//! under way end with them.

use std::{net::SocketAddr, time::Duration};

use access::Bearer;
use futures::future::join_all;
use reqwest::Method;
use tokio::sync::watch;

use super::{PageserverAt, RegionId};
use crate::{Error, metrics::METRICS};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a pageserver may take to answer the simplest request before it counts as silent.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long a request of a silent region may take.
const SILENT_MAX: Duration = Duration::from_secs(2);

/// Whether a region answers, as far as was seen.
#[derive(Clone)]
pub(crate) struct Health {
    region: RegionId,
    /// Why it does not answer, while it does not.
    silent: watch::Receiver<Option<String>>,
    patience: Duration,
}

/// Who finds it out.
pub(crate) struct Watch {
    region: RegionId,
    silent: watch::Sender<Option<String>>,
}

impl Health {
    /// Of a region of which nobody knows anything bad yet, and who is to find it out.
    pub(crate) fn new(region: RegionId) -> (Health, Watch) {
        let (sender, silent) = watch::channel(None);
        let health = Health { region: region.clone(), silent, patience: SILENT_MAX };
        (health, Watch { region, silent: sender })
    }

    /// The error of who cannot go on without the region.
    pub(crate) fn unavailable(&self, reason: String) -> Error {
        Error::Unavailable { region: self.region.clone(), reason }
    }

    /// Whether it answers.
    pub(crate) fn answers(&self) -> bool {
        self.silent.borrow().is_none()
    }

    /// Waits for what needs the region, but not for long while that is silent: then why.
    pub(crate) async fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, String> {
        tokio::select! {
            done = work => Ok(done),
            reason = self.hopeless() => Err(reason),
        }
    }

    /// Ends when the region was silent for longer than a request may wait.
    async fn hopeless(&self) -> String {
        let mut silent = self.silent.clone();
        loop {
            if silent.wait_for(Option::is_some).await.is_err() {
                // Nobody looks any more: the process ends.
                std::future::pending::<()>().await;
            }
            let answers = silent.wait_for(Option::is_none);
            let is_silent_still = tokio::time::timeout(self.patience, answers).await.is_err();
            let reason = silent.borrow().clone();
            if let Some(reason) = reason.filter(|_| is_silent_still) {
                return reason;
            }
        }
    }
}

impl Watch {
    /// Looks, until it is aborted.
    pub(crate) async fn run(self, pageservers: Vec<PageserverAt>, bearer: Bearer) {
        let http = bearer.trust().http();
        let answers_now = METRICS.region_answers.with_label_values(&[self.region.as_str()]);
        loop {
            let asked = pageservers.iter().map(|at| ask(&http, at.http, &bearer));
            let answers = join_all(asked).await;
            let failures: Vec<String> = answers.iter().flatten().cloned().collect();
            let silent = (failures.len() == answers.len()).then(|| failures.join("; "));
            answers_now.set(i64::from(silent.is_none()));
            self.silent.send_if_modified(|before| {
                let is_new = before.is_some() != silent.is_some();
                match (&silent, is_new) {
                    (Some(reason), true) => {
                        tracing::warn!(region = %self.region, reason, "a region does not answer");
                    }
                    (None, true) => tracing::warn!(region = %self.region, "a region answers again"),
                    _ => {}
                }
                *before = silent;
                is_new
            });
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Why a pageserver does not answer; `None` where it does, whatever it says: it is asked for nothing.
async fn ask(http: &reqwest::Client, address: SocketAddr, bearer: &Bearer) -> Option<String> {
    let request = bearer.request(http, Method::GET, address, "v1").timeout(ANSWER_MAX);
    let error = request.send().await.err()?;
    let kind =
        if error.is_timeout() { "takes requests and does not answer" } else { "is not there" };
    Some(format!("the pageserver at {address} {kind}"))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_silent_region_hears_of_it_unless_it_answers_meanwhile() {
        let (health, watch) = Health::new("eu".parse().expect("a good id"));
        let health = Health { patience: Duration::from_millis(200), ..health };
        assert_eq!(health.wait(ready(1)).await, Ok(1));
        watch.silent.send_replace(Some("it is gone".to_owned()));
        assert!(!health.answers());
        assert_eq!(health.wait(ready(2)).await, Ok(2), "what is there already is taken");
        assert_eq!(health.wait(pending::<u8>()).await, Err("it is gone".to_owned()));
        let slow = async {
            watch.silent.send_replace(None);
            tokio::time::sleep(2 * health.patience).await;
            3
        };
        assert_eq!(health.wait(slow).await, Ok(3), "it answers again");
        assert!(health.answers());
    }
}
