-- Clients as documents in the shape of the file, without keys.
-- $1 text: the id, or NULL for any; $2 text: ids after this one, or NULL; $3 bigint: at most so many, or NULL
-- name text, document jsonb, changed_us bigint, changed_by text; by id
SELECT c.id AS name,
       jsonb_strip_nulls(jsonb_build_object('tier', c.tier)) AS document,
       (extract(epoch FROM c.changed_at) * 1000000)::bigint AS changed_us,
       c.changed_by
FROM clients AS c
WHERE ($1::text IS NULL OR c.id = $1) AND ($2::text IS NULL OR c.id > $2)
ORDER BY c.id
LIMIT $3
