-- Keys without their secrets, by id.
-- $1 text: the id, or NULL; $2 text: the client, or NULL for all; $3 text: ids after this one, or NULL; $4 bigint: at most so many
-- id text, client text, name text, scopes text[], created_us, expires_us, revoked_us, last_used_us bigint
SELECT k.id, k.client, k.name, k.scopes,
       (extract(epoch FROM k.created_at) * 1000000)::bigint AS created_us,
       (extract(epoch FROM k.expires_at) * 1000000)::bigint AS expires_us,
       (extract(epoch FROM k.revoked_at) * 1000000)::bigint AS revoked_us,
       (extract(epoch FROM k.last_used_at) * 1000000)::bigint AS last_used_us
FROM api_keys AS k
WHERE ($1::text IS NULL OR k.id = $1) AND ($2::text IS NULL OR k.client = $2)
  AND ($3::text IS NULL OR k.id > $3)
ORDER BY k.id
LIMIT $4
