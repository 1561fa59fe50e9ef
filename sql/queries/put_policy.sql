-- Writes a policy, but for what other tables hold (put_policy_tiers.sql, put_policy_overrides.sql).
-- $1 text: its name; $2 jsonb: the document in the shape of the file; $3 text: who writes
INSERT INTO policies (name, routes, key, algorithm, quota, cost, consistency, lease_ttl, on_outage,
                      mode, methods, ipv6_prefix, status, changed_at, changed_by)
VALUES ($1,
        CASE WHEN jsonb_typeof($2 -> 'routes') = 'array'
             THEN ARRAY(SELECT jsonb_array_elements_text($2 -> 'routes')) END,
        CASE WHEN jsonb_typeof($2 -> 'key') = 'array'
             THEN ARRAY(SELECT jsonb_array_elements_text($2 -> 'key')) END,
        $2 ->> 'algorithm',
        $2 -> 'quota',
        ($2 ->> 'cost')::integer,
        $2 ->> 'consistency',
        $2 ->> 'lease_ttl',
        $2 ->> 'on_outage',
        $2 ->> 'mode',
        CASE WHEN jsonb_typeof($2 -> 'methods') = 'array'
             THEN ARRAY(SELECT jsonb_array_elements_text($2 -> 'methods')) END,
        ($2 ->> 'ipv6_prefix')::smallint,
        ($2 ->> 'status')::smallint,
        clock_timestamp(),
        $3)
ON CONFLICT (name) DO UPDATE
SET routes = excluded.routes, key = excluded.key, algorithm = excluded.algorithm,
    quota = excluded.quota, cost = excluded.cost, consistency = excluded.consistency,
    lease_ttl = excluded.lease_ttl, on_outage = excluded.on_outage, mode = excluded.mode,
    methods = excluded.methods, ipv6_prefix = excluded.ipv6_prefix, status = excluded.status,
    changed_at = excluded.changed_at, changed_by = excluded.changed_by
