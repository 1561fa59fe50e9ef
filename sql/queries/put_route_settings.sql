-- Writes the settings of a route.
-- $1 text: the route; $2 jsonb: the document in the shape of the file; $3 text: who writes
INSERT INTO route_settings (route, enabled, maintenance, upstream, canary, timeout, max_concurrent,
                            cost, changed_at, changed_by)
VALUES ($1,
        ($2 ->> 'enabled')::boolean,
        ($2 ->> 'maintenance')::boolean,
        $2 ->> 'upstream',
        nullif($2 -> 'canary', 'null'),
        $2 ->> 'timeout',
        ($2 ->> 'max_concurrent')::integer,
        ($2 ->> 'cost')::integer,
        clock_timestamp(),
        $3)
ON CONFLICT (route) DO UPDATE
SET enabled = excluded.enabled, maintenance = excluded.maintenance, upstream = excluded.upstream,
    canary = excluded.canary, timeout = excluded.timeout, max_concurrent = excluded.max_concurrent,
    cost = excluded.cost, changed_at = excluded.changed_at, changed_by = excluded.changed_by
