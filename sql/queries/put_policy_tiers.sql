-- Writes a policy's quotas for tiers; those it had are deleted before (clear_policy_tiers.sql).
-- $1 text: the policy; $2 jsonb: its document in the shape of the file
INSERT INTO policy_tiers (policy, tier, quota)
SELECT $1, t.key, t.value
FROM jsonb_each(coalesce($2 -> 'tiers', '{}')) AS t
