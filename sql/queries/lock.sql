-- lock
-- Waits until nobody else writes, until the end of the transaction: a document is judged together
-- with all the others, and revisions are numbered in the order in which they are committed.
-- pg_advisory_xact_lock void
SELECT pg_advisory_xact_lock(hashtextextended('tidegate:' || coalesce(current_schema(), ''), 7355608))
