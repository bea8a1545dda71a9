//! The least of a safekeeper that a pageserver can read from: it has one WAL, in files, and serves it to whoever asks by the
//! safekeepers' protocol; once it is told to, not before.

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::FileExt,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use parking_lot::{Condvar, Mutex};
use protocol::{
    TenantTimeline, Term,
    quorum::{APPEND_BYTES_MAX, Hello, Purpose, ReaderMessage, Refusal},
    wire::{self, PREFIX_BYTES},
};
use wal_format::Lsn;

use crate::stock_recovery::wal::{Recorded, SEGMENT_BYTES};

/// How often a reader that waits hears that there is nothing new.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// A service of one WAL at a time.
pub struct WalService {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    timeline: Option<TenantTimeline>,
    wal: Option<Arc<Wal>>,
    /// The end of what is sent.
    sent_to: Lsn,
}

/// Where the bytes are.
struct Wal {
    /// The segments from the first one's number on.
    segments: Vec<File>,
    first: u64,
}

impl WalService {
    pub fn start() -> Result<WalService> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                // A reader that goes away ends its thread.
                std::thread::spawn(move || serve(stream, &shared).ok());
            }
        });
        Ok(WalService { address, shared })
    }

    /// Has this WAL for this timeline, and sends nothing of it yet.
    pub fn hold(&self, timeline: TenantTimeline, recorded: &Recorded) -> Result<()> {
        let first = recorded.first().0 / u64::from(SEGMENT_BYTES);
        let last = recorded.last().0 / u64::from(SEGMENT_BYTES);
        let open = |number| {
            let path = recorded.segment(Lsn(number * u64::from(SEGMENT_BYTES)));
            File::open(&path).with_context(|| path.display().to_string())
        };
        let segments = (first..=last).map(open).collect::<Result<_>>()?;
        let mut state = self.shared.state.lock();
        state.timeline = Some(timeline);
        state.wal = Some(Arc::new(Wal { segments, first }));
        state.sent_to = Lsn::INVALID;
        Ok(())
    }

    /// Sends the WAL up to here.
    pub fn send_to(&self, end: Lsn) {
        self.shared.state.lock().sent_to = end;
        self.shared.changed.notify_all();
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> Result<()> {
    stream.set_nodelay(true)?;
    let hello = read_hello(&mut stream)?;
    // It keeps nothing, so nobody has to tell it what is consumed.
    let Purpose::Read { from, .. } = hello.purpose else { return Ok(()) };
    let mut piece = vec![0; APPEND_BYTES_MAX];
    let mut at = from;
    loop {
        let (wal, end) = {
            let mut state = shared.state.lock();
            if state.timeline != Some(hello.timeline) {
                let unknown = Refusal::UnknownTimeline(hello.timeline);
                return send(&mut stream, &ReaderMessage::Refused(unknown), &[]);
            }
            if state.sent_to <= at {
                shared.changed.wait_for(&mut state, HEARTBEAT);
            }
            (state.wal.clone().context("there is one with the timeline")?, state.sent_to)
        };
        let count = wal.read(at, end, &mut piece)?;
        let commit_lsn = end.max(from);
        let message = ReaderMessage::Wal { begin: at, commit_lsn, term: Term(1) };
        send(&mut stream, &message, &piece[..count])?;
        at += count as u64;
    }
}

impl Wal {
    /// What there is from `at` on and before `end`, as far as it fits and is in one segment.
    fn read(&self, at: Lsn, end: Lsn, piece: &mut [u8]) -> Result<usize> {
        let segment_bytes = u64::from(SEGMENT_BYTES);
        let offset = at.0 % segment_bytes;
        let left = (segment_bytes - offset).min(end.0.saturating_sub(at.0));
        let count = piece.len().min(left as usize);
        if count > 0 {
            let number = at.0 / segment_bytes - self.first;
            let segment = self.segments.get(number as usize).context("WAL that is there")?;
            segment.read_exact_at(&mut piece[..count], offset)?;
        }
        Ok(count)
    }
}

fn read_hello(stream: &mut TcpStream) -> Result<Hello> {
    let mut prefix = [0; PREFIX_BYTES];
    stream.read_exact(&mut prefix)?;
    let (header, payload) = wire::decode_prefix(prefix)?;
    let mut frame = vec![0; header + payload];
    stream.read_exact(&mut frame)?;
    Ok(wire::decode_header(&frame[..header])?)
}

fn send(stream: &mut TcpStream, message: &ReaderMessage, payload: &[u8]) -> Result<()> {
    stream.write_all(&wire::encode_head(message, payload.len())?)?;
    Ok(stream.write_all(payload)?)
}
