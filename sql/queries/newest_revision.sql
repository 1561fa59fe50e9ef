-- The newest revision, 0 where there is none.
-- revision bigint
SELECT coalesce(max(id), 0) AS revision FROM revisions
