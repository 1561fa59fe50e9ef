-- Deletes revisions that have been kept for long enough, a bounded number at a time. The newest stays, however
-- old: writers tell by its number whether somebody else has written.
-- $1 bigint: seconds
DELETE FROM revisions
WHERE id <= (SELECT max(id)
             FROM (SELECT id, at FROM revisions ORDER BY id LIMIT 1000) AS oldest
             WHERE at < now() - $1::bigint * interval '1 second')
  AND id < (SELECT max(id) FROM revisions)
