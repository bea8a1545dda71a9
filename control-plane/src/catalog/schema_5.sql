-- What version 5 of the catalog has besides: what branches use. Of a timeline from before it is not known
-- how much of its WAL was counted in which month: what comes from now on counts.

CREATE TABLE branch_consumption (
    branch TEXT PRIMARY KEY,
    month INTEGER NOT NULL,
    active_us INTEGER NOT NULL,
    compute_mcu_us INTEGER NOT NULL,
    written_bytes INTEGER NOT NULL,
    transfer_bytes INTEGER NOT NULL
) WITHOUT ROWID;

ALTER TABLE timelines ADD COLUMN written_bytes INTEGER;
ALTER TABLE timelines ADD COLUMN counts_for TEXT;
CREATE INDEX timelines_left ON timelines (project) WHERE counts_for IS NOT NULL;
