-- Revisions from the newest on.
-- $1 bigint: this one, or NULL; $2 bigint: those before this one, or NULL; $3 bigint: at most so many
-- id bigint, at_us bigint, by text, kind text, name text, before jsonb, after jsonb, rolled_back_from bigint
SELECT r.id, (extract(epoch FROM r.at) * 1000000)::bigint AS at_us, r.by, r.kind, r.name,
       r.before, r.after, r.rolled_back_from
FROM revisions AS r
WHERE ($1::bigint IS NULL OR r.id = $1) AND ($2::bigint IS NULL OR r.id < $2)
ORDER BY r.id DESC
LIMIT $3
