-- The tables of the catalog. docs/formats/catalog.md explains them. This is version 1; what a later
-- version adds stands in a file of its own.

CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    template TEXT,
    history_seconds INTEGER NOT NULL,
    settings TEXT NOT NULL,
    endpoint_settings TEXT NOT NULL,
    default_branch TEXT NOT NULL,
    tenant TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER
) WITHOUT ROWID;
CREATE INDEX projects_without_tenant ON projects (id) WHERE tenant IS NULL AND deleted_at IS NULL;
CREATE INDEX projects_deleted ON projects (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE timelines (
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    parent TEXT,
    moment TEXT,
    state TEXT NOT NULL,
    PRIMARY KEY (project, name)
) WITHOUT ROWID;
CREATE INDEX timelines_by_parent ON timelines (project, parent);
CREATE INDEX timelines_doomed ON timelines (project) WHERE state = 'doomed';
CREATE INDEX timelines_wanted ON timelines (project) WHERE state = 'wanted';

CREATE TABLE branches (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    timeline TEXT NOT NULL,
    parent TEXT,
    parent_lsn TEXT,
    parent_timestamp TEXT,
    protected INTEGER NOT NULL,
    annotation TEXT NOT NULL,
    expires_at INTEGER,
    last_reset_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (project, name)
) WITHOUT ROWID;
CREATE INDEX branches_by_timeline ON branches (project, timeline);
CREATE INDEX branches_by_parent ON branches (parent) WHERE parent IS NOT NULL;
CREATE INDEX branches_that_expire ON branches (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE endpoints (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    branch TEXT NOT NULL UNIQUE,
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
CREATE INDEX endpoints_by_project ON endpoints (project);

CREATE TABLE roles (
    branch TEXT NOT NULL,
    name TEXT NOT NULL,
    verifier TEXT,
    password TEXT,
    login INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (branch, name)
) WITHOUT ROWID;

CREATE TABLE passwords (
    verifier TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    password TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX passwords_by_project ON passwords (project);

CREATE TABLE databases (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    branch TEXT NOT NULL,
    name TEXT NOT NULL,
    owner TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (branch, name)
);

CREATE TABLE changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    branch TEXT NOT NULL,
    change TEXT NOT NULL
);
CREATE INDEX changes_by_branch ON changes (branch, id);

CREATE TABLE operations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL,
    branch TEXT,
    endpoint TEXT,
    action TEXT NOT NULL,
    status TEXT NOT NULL,
    error TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE INDEX operations_by_project ON operations (project, number);
CREATE INDEX operations_under_way ON operations (status) WHERE status IN ('scheduling', 'running');

CREATE TABLE api_keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    last_used_at INTEGER
);

CREATE TABLE retries (
    key TEXT PRIMARY KEY,
    request BLOB NOT NULL,
    subject TEXT NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX retries_by_age ON retries (created_at);
CREATE INDEX retries_by_subject ON retries (subject);
