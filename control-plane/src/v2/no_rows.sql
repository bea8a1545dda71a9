SET session_replication_role = replica;
DO $$
DECLARE
    list text;
    one regclass;
    own CONSTANT oid[] := ARRAY(
        SELECT c.oid FROM pg_catalog.pg_class c
        WHERE c.oid >= 16384 AND c.relpersistence <> 't'
        AND c.relnamespace <> 'pg_catalog'::regnamespace
        AND c.relnamespace <> 'pg_toast'::regnamespace
        AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_depend d
            WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
        )
    );
BEGIN
    -- A partitioned table is named for its foreign keys; one of which a part is elsewhere is not.
    SELECT string_agg(
        CASE c.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END || c.oid::regclass::text, ', '
    ) INTO list
    FROM pg_catalog.pg_class c
    WHERE c.oid = ANY (own) AND (
        c.relkind = 'r' OR c.relkind = 'p' AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_partition_tree(c.oid) part
            JOIN pg_catalog.pg_class p ON p.oid = part.relid WHERE p.relkind = 'f'
        )
    );
    IF list IS NOT NULL THEN
        EXECUTE 'TRUNCATE ' || list;
    END IF;
    FOR one IN SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid = ANY (own) AND c.relkind = 'S' LOOP
        EXECUTE format('ALTER SEQUENCE %s RESTART', one);
    END LOOP;
    FOR one IN SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid = ANY (own) AND c.relkind = 'm' LOOP
        EXECUTE format('REFRESH MATERIALIZED VIEW %s WITH NO DATA', one);
    END LOOP;
    PERFORM pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata;
    -- Samples of rows.
    DELETE FROM pg_catalog.pg_statistic WHERE starelid = ANY (own);
    DELETE FROM pg_catalog.pg_statistic_ext_data;
END
$$;
