//! What a safekeeper says of a timeline, asked as any peer asks.

use std::net::SocketAddr;

use anyhow::bail;
use protocol::{
    TenantTimeline,
    quorum::{Hello, PROTOCOL_VERSION, Purpose, ReaderMessage, TimelineStatus},
    token::Token,
    wire,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Asks a safekeeper for its status of a timeline.
pub async fn safekeeper_status(
    safekeeper: SocketAddr,
    timeline: TenantTimeline,
    token: Option<Token>,
) -> anyhow::Result<TimelineStatus> {
    let mut stream = TcpStream::connect(safekeeper).await?;
    let hello = Hello { version: PROTOCOL_VERSION, timeline, purpose: Purpose::Status, token };
    stream.write_all(&wire::encode(&hello, b"")?).await?;
    let mut prefix = [0; wire::PREFIX_BYTES];
    stream.read_exact(&mut prefix).await?;
    let (header, payload) = wire::decode_prefix(prefix)?;
    let mut frame = vec![0; header + payload];
    stream.read_exact(&mut frame).await?;
    match wire::decode_header(&frame[..header])? {
        ReaderMessage::Status(status) => Ok(status),
        other => bail!("{safekeeper} answered {other:?}"),
    }
}
