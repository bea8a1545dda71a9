//! Endpoints: which computes run, started and stopped over HTTP.
