-- Clients by id.
-- $1 text[]: ids
-- id text, tier text
SELECT c.id, c.tier FROM clients AS c WHERE c.id = ANY ($1)
