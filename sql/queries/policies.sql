-- Policies as documents in the shape of the file.
-- $1 text: the name, or NULL for any; $2 text: names after this one, or NULL; $3 bigint: at most so many, or NULL
-- name text, document jsonb, changed_us bigint, changed_by text; by name
SELECT p.name,
       jsonb_strip_nulls(jsonb_build_object(
           'routes', to_jsonb(p.routes),
           'key', to_jsonb(p.key),
           'algorithm', p.algorithm,
           'cost', p.cost,
           'consistency', p.consistency,
           'lease_ttl', p.lease_ttl,
           'on_outage', p.on_outage,
           'mode', p.mode,
           'methods', to_jsonb(p.methods),
           'ipv6_prefix', p.ipv6_prefix,
           'status', p.status))
       || jsonb_build_object('quota', p.quota)
       || coalesce(
           (SELECT jsonb_build_object('tiers', jsonb_object_agg(t.tier, t.quota))
            FROM policy_tiers AS t WHERE t.policy = p.name HAVING count(*) > 0), '{}')
       || coalesce(
           (SELECT jsonb_build_object('overrides', jsonb_object_agg(o.client, o.quota || CASE
                WHEN o.expires_at IS NULL THEN '{}'
                -- RFC 3339 in UTC, with a fraction only where there is one
                ELSE jsonb_build_object('expires',
                    to_char(o.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
                    || rtrim(to_char(o.expires_at AT TIME ZONE 'UTC', '.US'), '.0') || 'Z')
                END))
            FROM policy_overrides AS o WHERE o.policy = p.name HAVING count(*) > 0), '{}')
       AS document,
       (extract(epoch FROM p.changed_at) * 1000000)::bigint AS changed_us,
       p.changed_by
FROM policies AS p
WHERE ($1::text IS NULL OR p.name = $1) AND ($2::text IS NULL OR p.name > $2)
ORDER BY p.name
LIMIT $3
