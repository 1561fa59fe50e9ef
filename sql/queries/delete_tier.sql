-- Deletes a row of tiers.
-- $1 text: its name
DELETE FROM tiers WHERE name = $1
