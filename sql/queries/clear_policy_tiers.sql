-- Deletes a policy's quotas for tiers.
-- $1 text: the policy
DELETE FROM policy_tiers WHERE policy = $1
