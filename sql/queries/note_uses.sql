-- Notes when keys were last used. Rows that somebody else writes are left out: the next minute comes.
-- $1 text[]: ids; $2 bigint[]: microseconds since 1970, in the same order
UPDATE api_keys AS k SET last_used_at = u.at
FROM (SELECT id, timestamptz 'epoch' + us * interval '1 microsecond' AS at
      FROM unnest($1::text[], $2::bigint[]) AS used (id, us)) AS u,
     (SELECT id FROM api_keys WHERE id = ANY ($1) FOR NO KEY UPDATE SKIP LOCKED) AS free
WHERE k.id = u.id AND free.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.at)
