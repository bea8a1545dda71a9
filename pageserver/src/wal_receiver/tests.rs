//! When receivers come and go.

use bytes::Bytes;
use object_store::memory::InMemory;
use protocol::{
    BranchPoint, TimelineOrigin,
    quorum::{Hello, ReaderMessage, Refusal},
    wire,
};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use wal_format::{Page, Target};

use super::*;
use crate::{
    change::Change,
    connection::read_hello,
    key::Key,
    redo::Redo,
    tenants::{Options, TemplateSource, Tenants},
};

const IDLE_AFTER: Duration = Duration::from_millis(200);

/// Safekeepers at these addresses, which let everybody in.
fn at(addresses: Vec<SocketAddr>) -> Safekeepers {
    Safekeepers { addresses, bearer: Bearer::nobody() }
}

/// Nothing is ever replayed here.
struct NoRedo;

impl Redo for NoRedo {
    fn apply(&self, _: &[u8], _: Lsn, _: Target, _: &mut Page) -> Result<(), String> {
        Err("no record was expected".to_owned())
    }
}

/// A tenant's timeline and its template's.
async fn timelines() -> Result<(Arc<Timeline>, Arc<Timeline>), Error> {
    let tenants = Tenants::new(Options {
        store: Arc::new(InMemory::new()),
        redo: Arc::new(NoRedo),
        cache_bytes: 1 << 20,
        on_load: Box::new(|_| {}),
    });
    let point = BranchPoint { lsn: Lsn(0x100_0000), last_record: Lsn(0xFF_FF00) };
    let origin = TimelineOrigin { point, system_id: 7, segment_bytes: 16 << 20, major: 15 };
    let source = TemplateSource { origin, checksums: false };
    let mut writer = tenants.import_template("stock", source).await?;
    writer.put(Key::CONTROL, Bytes::from_static(b"control")).await?;
    let template = writer.finish().await?;
    let tenant = tenants.create_tenant("acme", "stock").await?;
    let of = async |id| tenants.timeline(id).await;
    Ok((of(tenant.branches[0].timeline).await?, of(template.branches[0].timeline).await?))
}

#[tokio::test]
async fn a_receiver_leaves_when_it_is_not_used_and_comes_back_on_use() {
    let (timeline, _) = timelines().await.expect("an empty timeline");
    let nobody = "127.0.0.1:1".parse().expect("an address");
    let receivers = Receivers::new(at(vec![nobody]), IDLE_AFTER);
    let used = receivers.receive(&timeline);
    tokio::time::sleep(IDLE_AFTER * 3).await;
    assert!(receivers.status(timeline.id()).is_some(), "it left while it was used");
    drop(used);
    let began = Instant::now();
    while receivers.status(timeline.id()).is_some() {
        assert!(began.elapsed() < Duration::from_secs(120), "it did not leave");
        tokio::time::sleep(IDLE_AFTER / 4).await;
    }
    assert!(began.elapsed() >= IDLE_AFTER, "it left at once");
    let _again = receivers.receive(&timeline);
    assert!(receivers.status(timeline.id()).is_some(), "it did not come back");
    receivers.shutdown().await;
    assert!(receivers.status(timeline.id()).is_none(), "it outlived the pageserver");
}

/// A safekeeper on which no compute has ever written.
async fn untouched_safekeeper() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("it listens");
            let hello = read_hello::<Hello>(&mut stream).await;
            let hello = hello.expect("a frame").expect("a greeting");
            let refusal = ReaderMessage::Refused(Refusal::UnknownTimeline(hello.timeline));
            let frame = wire::encode(&refusal, &[]).expect("a short frame");
            stream.write_all(&frame).await.expect("it is read");
        }
    });
    address
}

#[tokio::test]
async fn the_receiver_of_a_timeline_on_which_nobody_ever_wrote_stays_only_while_it_is_used() {
    let (timeline, _) = timelines().await.expect("an empty timeline");
    let (a, b) = (untouched_safekeeper().await, untouched_safekeeper().await);
    // It would wait for ever if it waited to be idle for long.
    let receivers = Receivers::new(at(vec![a, b]), Duration::MAX);
    let used = receivers.receive(&timeline);
    tokio::time::sleep(IDLE_AFTER).await;
    let status = receivers.status(timeline.id());
    assert!(matches!(status, Some(ReceiverStatus::Waiting { .. })), "{status:?}");
    drop(used);
    for _ in 0..600 {
        if receivers.status(timeline.id()).is_none() {
            return receivers.shutdown().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it did not leave");
}

#[tokio::test]
async fn a_template_receives_nothing() {
    let (_, template) = timelines().await.expect("an empty template");
    let receivers = Receivers::new(at(Vec::new()), IDLE_AFTER);
    let _used = receivers.receive(&template);
    assert_eq!(receivers.status(template.id()), None);
    receivers.shutdown().await;
}

#[tokio::test]
async fn a_receiver_that_panics_says_so_and_nothing_of_it_is_stored() {
    let (timeline, _) = timelines().await.expect("an empty timeline");
    let receiver = Arc::new(Receiver::new(&timeline, ReceiverStatus::Ended));
    let (start, end) = (timeline.last_record_lsn(), timeline.last_record_lsn() + 8);
    let work = async {
        timeline.apply(Change { start, end, ..Change::default() });
        tokio::task::yield_now().await;
        panic!("a record of {} bytes", 7);
    };
    or_stop(&receiver, work).await;
    let reason = "a record of 7 bytes".to_owned();
    let stopped = IngestError::Panicked { at: end, reason };
    assert_eq!(*receiver.status.borrow(), ReceiverStatus::Stopped(stopped.clone()));
    assert_eq!(timeline.flush().await, Err(Error::IngestStopped(stopped.to_string())));
    let used = Use { receiver };
    let waited = used.wait_for(end + 8, Duration::from_secs(60)).await;
    assert_eq!(waited, Err(Error::IngestStopped(stopped.to_string())));
}
