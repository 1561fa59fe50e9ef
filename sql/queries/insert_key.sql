-- Makes a key.
-- $1 text: its id; $2 bytea: its SHA-256; $3 text: the client; $4 text: its name, or NULL; $5 text[]: scopes; $6 bigint: when it expires, microseconds since 1970, or NULL
INSERT INTO api_keys (id, sha256, client, name, scopes, expires_at)
VALUES ($1, $2, $3, $4, $5, timestamptz 'epoch' + $6::bigint * interval '1 microsecond')
