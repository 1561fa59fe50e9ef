-- The version of the schema; only where schema_history exists (schema_exists.sql).
-- version integer: 0 where nothing was applied
SELECT coalesce(max(version), 0) AS version FROM schema_history
