//! The WAL quorum's member: acceptor, journal, WAL service, offload.
