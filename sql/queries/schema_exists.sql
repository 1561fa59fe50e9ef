-- Has a migration ever been applied?
-- found boolean
SELECT to_regclass('schema_history') IS NOT NULL AS found
