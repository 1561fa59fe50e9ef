-- Revokes a key, unless that has been done.
-- $1 text: its id
UPDATE api_keys SET revoked_at = clock_timestamp() WHERE id = $1 AND revoked_at IS NULL
