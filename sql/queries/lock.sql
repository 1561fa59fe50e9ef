-- Waits until nobody else writes the same thing, until the end of the transaction; rows that do
-- not exist yet cannot be locked themselves.
-- $1 text: kind and name
SELECT pg_advisory_xact_lock(hashtextextended($1, 7355608))
