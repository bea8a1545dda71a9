-- What version 4 of the catalog has besides: in which region projects and templates are. What is from
-- before has no region yet; it gets the default one before anything else is done with it.

ALTER TABLE projects ADD COLUMN region TEXT NOT NULL DEFAULT '';
DROP INDEX projects_without_tenant;
CREATE INDEX projects_without_tenant ON projects (region, id)
    WHERE tenant IS NULL AND deleted_at IS NULL;

CREATE TABLE templates_by_region (
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    project TEXT NOT NULL,
    branch TEXT NOT NULL,
    operation TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (region, name)
) WITHOUT ROWID;
INSERT INTO templates_by_region
    SELECT '', name, project, branch, operation, state, created_at FROM templates;
DROP TABLE templates;
ALTER TABLE templates_by_region RENAME TO templates;
