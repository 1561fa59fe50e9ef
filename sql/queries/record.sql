-- Records a change.
-- $1 text: who; $2 text: kind; $3 text: name; $4 jsonb: before; $5 jsonb: after; $6 bigint: the revision taken back, or NULL; it may not be kept any more
-- id bigint
INSERT INTO revisions (by, kind, name, before, after, rolled_back_from)
VALUES ($1, $2, $3, $4, $5, (SELECT id FROM revisions WHERE id = $6 FOR KEY SHARE))
RETURNING id
