-- Deletes a policy's quotas for clients.
-- $1 text: the policy
DELETE FROM policy_overrides WHERE policy = $1
