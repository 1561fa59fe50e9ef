-- Deletes a row of route_settings.
-- $1 text: its route
DELETE FROM route_settings WHERE route = $1
