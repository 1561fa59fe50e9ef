-- prune_changes
-- Deletes changes that every gateway has long followed, a bounded number at a time. Ids grow with
-- time, so that only the first ones are looked at, however many are young.
DELETE FROM changes
WHERE id <= (SELECT max(id)
             FROM (SELECT id, at FROM changes ORDER BY id LIMIT 10000) AS oldest
             WHERE at < now() - interval '1 day')
