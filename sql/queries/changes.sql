-- Changes of transactions that the last look did not see yet, whatever order they ended in.
-- $1 text: the snapshot of the last look; NULL: no changes, only the snapshot
-- version integer, snapshot text: what to pass at the next look, and per change id bigint, kind text, subject text (all NULL: no change)
SELECT look.version, look.snapshot, c.id, c.kind, c.subject
FROM (SELECT (SELECT coalesce(max(version), 0) FROM schema_history) AS version,
             pg_current_snapshot()::text AS snapshot) AS look
LEFT JOIN (SELECT id, kind, subject FROM changes
           WHERE txid >= pg_snapshot_xmin($1::text::pg_snapshot)
             AND NOT pg_visible_in_snapshot(txid, $1::text::pg_snapshot)
           ORDER BY id LIMIT 10001) AS c ON true
