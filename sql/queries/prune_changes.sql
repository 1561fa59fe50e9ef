-- Deletes changes that every gateway has long followed, a bounded number at a time.
DELETE FROM changes
WHERE id IN (SELECT id FROM changes WHERE at < now() - interval '1 day'
             ORDER BY id LIMIT 10000 FOR UPDATE SKIP LOCKED)
