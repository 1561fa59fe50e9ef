-- Writes a client.
-- $1 text: its id; $2 jsonb: the document in the shape of the file; $3 text: who writes
INSERT INTO clients (id, tier, changed_at, changed_by)
VALUES ($1, $2 ->> 'tier', clock_timestamp(), $3)
ON CONFLICT (id) DO UPDATE
SET tier = excluded.tier, changed_at = excluded.changed_at, changed_by = excluded.changed_by
