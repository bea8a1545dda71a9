//! The WAL service.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use protocol::{
    Term, TimelineOrigin,
    quorum::{
        AcceptorMessage, Configuration, Hello, PROTOCOL_VERSION, ProposerMessage, Purpose,
        ReadLimit, ReaderMessage, Refusal, TermHistory,
    },
    token::{Scope, Token},
    wire,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use wal_format::Lsn;

use super::Two;
use crate::harness::{safekeeper_status, token, token_for};

struct Frames(TcpStream);

impl Frames {
    async fn connect(safekeeper: SocketAddr, hello: &Hello) -> anyhow::Result<Frames> {
        let mut frames = Frames(TcpStream::connect(safekeeper).await?);
        frames.send(hello).await?;
        Ok(frames)
    }

    async fn send(&mut self, header: &impl Serialize) -> anyhow::Result<()> {
        Ok(self.0.write_all(&wire::encode(header, b"")?).await?)
    }

    async fn next<H: DeserializeOwned>(&mut self) -> anyhow::Result<Option<(H, Bytes)>> {
        let mut prefix = [0; wire::PREFIX_BYTES];
        if self.0.read(&mut prefix[..1]).await? == 0 {
            return Ok(None);
        }
        self.0.read_exact(&mut prefix[1..]).await?;
        let (header, payload) = wire::decode_prefix(prefix)?;
        let mut frame = vec![0; header + payload];
        self.0.read_exact(&mut frame).await?;
        let frame = Bytes::from(frame);
        Ok(Some((wire::decode_header(&frame[..header])?, frame.slice(header..))))
    }
}

/// One of each purpose: a new one does not compile until it is here.
fn purposes(origin: TimelineOrigin, configuration: &Configuration) -> Vec<Purpose> {
    let (from, until) = (origin.point.lsn, origin.point.lsn + 8);
    let all = [
        Purpose::Propose { origin, proposer: 1 },
        Purpose::Read { from, limit: ReadLimit::Commit },
        Purpose::Read { from, limit: ReadLimit::Flush { last_log_term: Term(1), until } },
        Purpose::Status,
        Purpose::Consumed { remote_consistent_lsn: from },
        Purpose::Configure { configuration: configuration.clone() },
    ];
    for purpose in &all {
        match purpose {
            Purpose::Propose { .. }
            | Purpose::Read { .. }
            | Purpose::Status
            | Purpose::Consumed { .. }
            | Purpose::Configure { .. } => {}
        }
    }
    all.into()
}

/// One of each message of a proposer but for a renewal.
fn messages(at: Lsn) -> Vec<ProposerMessage> {
    let (generation, term) = (1, Term(1000));
    let all = [
        ProposerMessage::Vote { generation, term },
        ProposerMessage::Elected { generation, term, start: at, history: TermHistory::default() },
        ProposerMessage::Append { generation, term, begin: at, commit_lsn: at },
    ];
    for message in &all {
        match message {
            ProposerMessage::Vote { .. }
            | ProposerMessage::Elected { .. }
            | ProposerMessage::Append { .. }
            | ProposerMessage::Renew { .. } => {}
        }
    }
    all.into()
}

/// What a safekeeper answers first; it must refuse.
async fn refusal(safekeeper: SocketAddr, hello: &Hello) -> anyhow::Result<Refusal> {
    let mut frames = Frames::connect(safekeeper, hello).await?;
    let refusal = match &hello.purpose {
        Purpose::Propose { .. } => match frames.next().await?.context("an answer")?.0 {
            AcceptorMessage::Refused(refusal) => refusal,
            other => bail!("{other:?}"),
        },
        _ => match frames.next().await?.context("an answer")? {
            (ReaderMessage::Refused(refusal), payload) if payload.is_empty() => refusal,
            (other, _) => bail!("{other:?}"),
        },
    };
    ensure!(frames.next::<ReaderMessage>().await?.is_none(), "it says more after a refusal");
    Ok(refusal)
}

#[tokio::test(flavor = "multi_thread")]
async fn for_another_tenants_token_a_safekeeper_knows_no_such_timeline() -> anyhow::Result<()> {
    let two = Two::start().await?;
    let safekeeper = two.cluster.safekeepers[0];
    let status = safekeeper_status(safekeeper, two.theirs, token()).await?;
    let origin = status.origin.context("it knows the timeline")?;
    let configuration = status.configuration.context("it knows the members")?;
    let purposes = purposes(origin, &configuration);
    let unknown = Refusal::UnknownTimeline(two.theirs);
    let hello = |purpose: &Purpose, token: Option<Token>| Hello {
        version: PROTOCOL_VERSION,
        timeline: two.theirs,
        purpose: purpose.clone(),
        token,
    };
    for (what, token) in two.wrong_tokens()? {
        for purpose in &purposes {
            let refused = refusal(safekeeper, &hello(purpose, token.clone())).await;
            let refused = refused.with_context(|| format!("{what}: {purpose:?}"))?;
            ensure!(refused == unknown, "{what}: {purpose:?}: {refused:?}");
        }
    }
    // What servers tell each other is not for a compute, also not of its own timeline.
    let own = Some(token_for(Scope::Tenant(two.theirs.tenant)));
    for purpose in &purposes {
        if matches!(purpose, Purpose::Consumed { .. } | Purpose::Configure { .. }) {
            let refused = refusal(safekeeper, &hello(purpose, own.clone())).await?;
            ensure!(refused == unknown, "{purpose:?}: {refused:?}");
        }
    }
    let after = safekeeper_status(safekeeper, two.theirs, token()).await?;
    ensure!(after.term == status.term, "somebody was elected");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_a_proposer_is_checked() -> anyhow::Result<()> {
    let two = Two::start().await?;
    let safekeeper = two.cluster.safekeepers[0];
    let before = safekeeper_status(safekeeper, two.theirs, token()).await?;
    let origin = before.origin.context("it knows the timeline")?;
    let life = Duration::from_secs(2);
    for message in messages(origin.point.lsn) {
        let token = Some(two.short(Scope::Tenant(two.theirs.tenant), life)?);
        let purpose = Purpose::Propose { origin, proposer: 7 };
        let hello = Hello { version: PROTOCOL_VERSION, timeline: two.theirs, purpose, token };
        let mut frames = Frames::connect(safekeeper, &hello).await?;
        let greeting = frames.next::<AcceptorMessage>().await?.context("a greeting")?.0;
        ensure!(matches!(greeting, AcceptorMessage::Greeting { .. }), "{greeting:?}");
        // It ends while the connection is open.
        tokio::time::sleep(life).await;
        frames.send(&message).await?;
        let answer = frames.next::<AcceptorMessage>().await?.context("an answer")?.0;
        let unknown = AcceptorMessage::Refused(Refusal::UnknownTimeline(two.theirs));
        ensure!(answer == unknown, "{message:?}: {answer:?}");
    }
    // Another tenant's token renews nothing.
    let own = Some(token_for(Scope::Tenant(two.theirs.tenant)));
    let purpose = Purpose::Propose { origin, proposer: 7 };
    let hello = Hello { version: PROTOCOL_VERSION, timeline: two.theirs, purpose, token: own };
    let mut frames = Frames::connect(safekeeper, &hello).await?;
    let _greeting = frames.next::<AcceptorMessage>().await?;
    let renewal = ProposerMessage::Renew { token: token_for(Scope::Tenant(two.ours.tenant)) };
    frames.send(&renewal).await?;
    let answer = frames.next::<AcceptorMessage>().await?.context("an answer")?.0;
    ensure!(answer == AcceptorMessage::Refused(Refusal::UnknownTimeline(two.theirs)), "{answer:?}");
    let after = safekeeper_status(safekeeper, two.theirs, token()).await?;
    ensure!(after.term == before.term, "somebody was elected");
    Ok(())
}
