-- What version 3 of the catalog has besides: endpoints to read only, of which a branch may have several.

CREATE TABLE endpoints_by_kind (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    project TEXT NOT NULL,
    branch TEXT NOT NULL,
    name TEXT,
    min_cu REAL NOT NULL,
    max_cu REAL NOT NULL,
    suspend_timeout_seconds INTEGER NOT NULL,
    settings TEXT NOT NULL,
    disabled INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    started_at INTEGER,
    suspended_at INTEGER
) WITHOUT ROWID;
INSERT INTO endpoints_by_kind
    SELECT id, 'read_write', project, branch, name, min_cu, max_cu, suspend_timeout_seconds, settings,
        disabled, created_at, updated_at, started_at, suspended_at
    FROM endpoints;
DROP TABLE endpoints;
ALTER TABLE endpoints_by_kind RENAME TO endpoints;
CREATE INDEX endpoints_by_project ON endpoints (project);
CREATE INDEX endpoints_by_branch ON endpoints (branch);
CREATE UNIQUE INDEX endpoints_to_write ON endpoints (branch) WHERE kind = 'read_write';
