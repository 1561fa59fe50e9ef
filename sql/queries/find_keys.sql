-- Valid keys by digest, with their clients' tiers.
-- $1 bytea[]: digests
-- sha256 bytea, id text, client text, tier text, scopes text[], expires_us bigint
SELECT k.sha256, k.id, k.client, c.tier, k.scopes,
       (extract(epoch FROM k.expires_at) * 1000000)::bigint AS expires_us
FROM api_keys AS k LEFT JOIN clients AS c ON c.id = k.client
WHERE k.sha256 = ANY ($1) AND k.revoked_at IS NULL
