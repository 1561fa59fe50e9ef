-- Records a change.
-- $1 text: who; $2 text: kind; $3 text: name; $4 jsonb: before; $5 jsonb: after; $6 bigint: the revision taken back, or NULL
-- id bigint
INSERT INTO revisions (by, kind, name, before, after, rolled_back_from)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING id
