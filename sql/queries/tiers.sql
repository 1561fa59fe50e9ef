-- Tiers as documents in the shape of the file.
-- $1 text: the name, or NULL for any; $2 text: names after this one, or NULL; $3 bigint: at most so many, or NULL
-- name text, document jsonb, changed_us bigint, changed_by text; by name
SELECT t.name,
       '{}'::jsonb AS document,
       (extract(epoch FROM t.changed_at) * 1000000)::bigint AS changed_us,
       t.changed_by
FROM tiers AS t
WHERE ($1::text IS NULL OR t.name = $1) AND ($2::text IS NULL OR t.name > $2)
ORDER BY t.name
LIMIT $3
