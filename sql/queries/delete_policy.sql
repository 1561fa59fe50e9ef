-- Deletes a row of policies.
-- $1 text: its name
DELETE FROM policies WHERE name = $1
