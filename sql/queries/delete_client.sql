-- Deletes a row of clients.
-- $1 text: its id
DELETE FROM clients WHERE id = $1
