-- Writes a policy's quotas for clients; those it had are deleted before (clear_policy_overrides.sql).
-- $1 text: the policy; $2 jsonb: its document in the shape of the file
INSERT INTO policy_overrides (policy, client, quota, expires_at)
SELECT $1, o.key, o.value - 'expires', (o.value ->> 'expires')::timestamptz
FROM jsonb_each(coalesce($2 -> 'overrides', '{}')) AS o
