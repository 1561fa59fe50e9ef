-- Writes a tier.
-- $1 text: its name; $2 jsonb: {}; $3 text: who writes
INSERT INTO tiers (name, changed_at, changed_by)
SELECT $1, clock_timestamp(), $3 WHERE $2::jsonb IS NOT NULL
ON CONFLICT (name) DO UPDATE
SET changed_at = excluded.changed_at, changed_by = excluded.changed_by
