-- What version 2 of the catalog has besides: what projects use, and templates.

CREATE TABLE consumption (
    project TEXT NOT NULL,
    hour INTEGER NOT NULL,
    active_us INTEGER NOT NULL DEFAULT 0,
    compute_mcu_us INTEGER NOT NULL DEFAULT 0,
    written_bytes INTEGER NOT NULL DEFAULT 0,
    transfer_bytes INTEGER NOT NULL DEFAULT 0,
    logical_bytes INTEGER,
    stored_bytes INTEGER,
    PRIMARY KEY (project, hour)
) WITHOUT ROWID;

CREATE TABLE meters (
    project TEXT PRIMARY KEY,
    written_bytes INTEGER,
    logical_bytes INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    held_bytes TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE templates (
    name TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    branch TEXT NOT NULL,
    operation TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX projects_by_template ON projects (template) WHERE template IS NOT NULL;
