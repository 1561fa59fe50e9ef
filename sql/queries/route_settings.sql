-- Settings of routes as documents in the shape of the file.
-- $1 text: the route, or NULL for any; $2 text: routes after this one, or NULL; $3 bigint: at most so many, or NULL
-- name text, document jsonb, changed_us bigint, changed_by text; by route
SELECT s.route AS name,
       jsonb_strip_nulls(jsonb_build_object(
           'enabled', s.enabled,
           'maintenance', s.maintenance,
           'upstream', s.upstream,
           'timeout', s.timeout,
           'max_concurrent', s.max_concurrent,
           'cost', s.cost))
       || CASE WHEN s.canary IS NULL THEN '{}' ELSE jsonb_build_object('canary', s.canary) END
       AS document,
       (extract(epoch FROM s.changed_at) * 1000000)::bigint AS changed_us,
       s.changed_by
FROM route_settings AS s
WHERE ($1::text IS NULL OR s.route = $1) AND ($2::text IS NULL OR s.route > $2)
ORDER BY s.route
LIMIT $3
