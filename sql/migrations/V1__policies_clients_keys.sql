-- Policies, tiers, clients, API keys and settings of routes, with a record of who changed what and
-- a log of changes that running gateways follow.
--
-- Names compare byte by byte (COLLATE "C"), so that lists page in the same order everywhere.
-- Columns of documents that are NULL are absent from the document: the default of the file holds.

CREATE TABLE tiers (
    name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    changed_at timestamptz NOT NULL DEFAULT now(),
    changed_by text NOT NULL DEFAULT session_user CHECK (length(changed_by) <= 256)
);

CREATE TABLE clients (
    id text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[!-~]{1,128}$'),
    tier text COLLATE "C" CHECK (tier ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    changed_at timestamptz NOT NULL DEFAULT now(),
    changed_by text NOT NULL DEFAULT session_user CHECK (length(changed_by) <= 256)
);

-- fillfactor: last_used_at is written often and is in no index, so the new version of a row can
-- stay in its page
CREATE TABLE api_keys (
    id text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[!-~]{1,64}$'),
    sha256 bytea NOT NULL UNIQUE CHECK (length(sha256) = 32),
    client text COLLATE "C" NOT NULL CHECK (client ~ '^[!-~]{1,128}$'),
    name text CHECK (length(name) BETWEEN 1 AND 128),
    scopes text[] NOT NULL DEFAULT '{}'
        CHECK (cardinality(scopes) <= 64 AND length(array_to_string(scopes, ' ', ' ')) <= 8256
               AND array_position(scopes, NULL) IS NULL),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz CHECK (isfinite(expires_at)),
    revoked_at timestamptz,
    last_used_at timestamptz
) WITH (fillfactor = 90);
CREATE INDEX api_keys_client ON api_keys (client, id);

CREATE TABLE policies (
    name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    routes text[] CHECK (cardinality(routes) <= 10000),
    key text[] NOT NULL CHECK (cardinality(key) <= 32),
    algorithm text NOT NULL CHECK (length(algorithm) <= 64),
    quota jsonb NOT NULL CHECK (jsonb_typeof(quota) = 'object' AND length(quota::text) <= 1024),
    cost integer,
    consistency text CHECK (length(consistency) <= 64),
    lease_ttl text CHECK (length(lease_ttl) <= 64),
    on_outage text CHECK (length(on_outage) <= 64),
    mode text CHECK (length(mode) <= 64),
    methods text[] CHECK (cardinality(methods) <= 64),
    ipv6_prefix smallint,
    status smallint,
    changed_at timestamptz NOT NULL DEFAULT now(),
    changed_by text NOT NULL DEFAULT session_user CHECK (length(changed_by) <= 256)
);

CREATE TABLE policy_tiers (
    policy text COLLATE "C" NOT NULL REFERENCES policies (name) ON UPDATE CASCADE ON DELETE CASCADE,
    tier text COLLATE "C" NOT NULL CHECK (tier ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    quota jsonb NOT NULL CHECK (jsonb_typeof(quota) = 'object' AND length(quota::text) <= 1024),
    PRIMARY KEY (policy, tier)
);

CREATE TABLE policy_overrides (
    policy text COLLATE "C" NOT NULL REFERENCES policies (name) ON UPDATE CASCADE ON DELETE CASCADE,
    client text COLLATE "C" NOT NULL CHECK (client ~ '^[!-~]{1,128}$'),
    quota jsonb NOT NULL CHECK (jsonb_typeof(quota) = 'object' AND length(quota::text) <= 1024),
    expires_at timestamptz CHECK (isfinite(expires_at)),
    PRIMARY KEY (policy, client)
);

CREATE TABLE route_settings (
    route text COLLATE "C" PRIMARY KEY CHECK (route ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    enabled boolean,
    maintenance boolean,
    upstream text CHECK (length(upstream) <= 63),
    canary jsonb CHECK (jsonb_typeof(canary) = 'object' AND length(canary::text) <= 1024),
    timeout text CHECK (length(timeout) <= 64),
    max_concurrent integer,
    cost integer,
    changed_at timestamptz NOT NULL DEFAULT now(),
    changed_by text NOT NULL DEFAULT session_user CHECK (length(changed_by) <= 256)
);

CREATE TABLE revisions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    by text NOT NULL CHECK (length(by) <= 256),
    kind text NOT NULL CHECK (length(kind) <= 32),
    name text COLLATE "C" NOT NULL CHECK (length(name) <= 128),
    before jsonb,
    after jsonb,
    rolled_back_from bigint REFERENCES revisions (id) ON DELETE SET NULL
);
CREATE INDEX revisions_subject ON revisions (kind, name, id);
-- for those that are deleted when they have been kept for long enough
CREATE INDEX revisions_rolled_back_from ON revisions (rolled_back_from) WHERE rolled_back_from IS NOT NULL;

-- clock_timestamp: a transaction may be old when it writes, and its entry must not be pruned at once
CREATE TABLE changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind text NOT NULL,
    subject text
);
CREATE INDEX changes_txid ON changes (txid);

-- What belongs in the snapshot is read as a whole: one entry for one statement.
CREATE FUNCTION tidegate_note_rows() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO changes (kind) VALUES ('rows');
    PERFORM pg_notify('tidegate', '');
    RETURN NULL;
END
$$;

-- Up to a thousand subjects are named; a statement about more, or TRUNCATE, is one entry that
-- means all of them, so that loading a million keys is no burden to anybody.
CREATE FUNCTION tidegate_note_subjects(what text, subjects text[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF subjects IS NULL OR cardinality(subjects) = 0 THEN
        RETURN;
    END IF;
    IF cardinality(subjects) > 1000 THEN
        INSERT INTO changes (kind) VALUES (what);
    ELSE
        INSERT INTO changes (kind, subject) SELECT what, subject FROM unnest(subjects) AS s (subject);
    END IF;
    PERFORM pg_notify('tidegate', '');
END
$$;

CREATE FUNCTION tidegate_note_keys() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    digests text[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        digests := ARRAY(SELECT encode(sha256, 'hex') FROM new_rows LIMIT 1001);
    ELSIF TG_OP = 'DELETE' THEN
        digests := ARRAY(SELECT encode(sha256, 'hex') FROM old_rows LIMIT 1001);
    ELSIF TG_OP = 'UPDATE' THEN
        -- not for last_used_at, which changes all the time
        digests := ARRAY(
            SELECT DISTINCT encode(digest, 'hex')
            FROM old_rows AS o FULL JOIN new_rows AS n USING (id),
                 LATERAL (VALUES (o.sha256), (n.sha256)) AS either (digest)
            WHERE digest IS NOT NULL
              AND (o.sha256, o.client, o.scopes, o.expires_at, o.revoked_at)
                  IS DISTINCT FROM (n.sha256, n.client, n.scopes, n.expires_at, n.revoked_at)
            LIMIT 1001);
    ELSE
        INSERT INTO changes (kind) VALUES ('key');
        PERFORM pg_notify('tidegate', '');
    END IF;
    PERFORM tidegate_note_subjects('key', digests);
    RETURN NULL;
END
$$;

-- A client that is deleted takes its keys along, whoever deletes it. Keys carry their client's
-- tier, so they change with it.
CREATE FUNCTION tidegate_note_clients() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    ids text[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        ids := ARRAY(SELECT id FROM new_rows LIMIT 1001);
    ELSIF TG_OP = 'DELETE' THEN
        UPDATE api_keys SET revoked_at = now()
        WHERE client IN (SELECT id FROM old_rows) AND revoked_at IS NULL;
        ids := ARRAY(SELECT id FROM old_rows LIMIT 1001);
    ELSIF TG_OP = 'UPDATE' THEN
        ids := ARRAY(
            SELECT DISTINCT client_id
            FROM old_rows AS o FULL JOIN new_rows AS n USING (id),
                 LATERAL (VALUES (o.id), (n.id)) AS either (client_id)
            WHERE client_id IS NOT NULL AND (o.id, o.tier) IS DISTINCT FROM (n.id, n.tier)
            LIMIT 1001);
    ELSE
        UPDATE api_keys SET revoked_at = now() WHERE revoked_at IS NULL;
        INSERT INTO changes (kind) VALUES ('client'), ('key');
        PERFORM pg_notify('tidegate', '');
    END IF;
    PERFORM tidegate_note_subjects('client', ids);
    IF cardinality(ids) <= 1000 THEN
        PERFORM tidegate_note_subjects('key', ARRAY(
            SELECT encode(sha256, 'hex') FROM api_keys
            WHERE client = ANY (ids) AND revoked_at IS NULL LIMIT 1001));
    ELSIF cardinality(ids) > 1000 THEN
        INSERT INTO changes (kind) VALUES ('key');
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON tiers
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_note_rows();
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON policies
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_note_rows();
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON policy_tiers
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_note_rows();
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON policy_overrides
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_note_rows();
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON route_settings
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_note_rows();

CREATE TRIGGER note_insert AFTER INSERT ON api_keys REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_note_keys();
CREATE TRIGGER note_update AFTER UPDATE ON api_keys REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_note_keys();
CREATE TRIGGER note_delete AFTER DELETE ON api_keys REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_note_keys();
CREATE TRIGGER note_truncate AFTER TRUNCATE ON api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_note_keys();

CREATE TRIGGER note_insert AFTER INSERT ON clients REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_note_clients();
CREATE TRIGGER note_update AFTER UPDATE ON clients REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_note_clients();
CREATE TRIGGER note_delete AFTER DELETE ON clients REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_note_clients();
CREATE TRIGGER note_truncate AFTER TRUNCATE ON clients
    FOR EACH STATEMENT EXECUTE FUNCTION tidegate_note_clients();

COMMENT ON TABLE tiers IS 'Plans that clients are on, beside those of the file.';
COMMENT ON COLUMN tiers.name IS 'Its name: a-z, 0-9, _ and -, 63 characters at most.';
COMMENT ON COLUMN tiers.changed_at IS 'When the admin API or the command line wrote it last.';
COMMENT ON COLUMN tiers.changed_by IS 'Who wrote it last; of a row written by hand, the database role that inserted it.';

COMMENT ON TABLE clients IS 'Those who call, beside those of the file.';
COMMENT ON COLUMN clients.id IS 'Its id: visible ASCII, 128 characters at most.';
COMMENT ON COLUMN clients.tier IS 'The tier it is on, of this database or of the file; NULL: none.';
COMMENT ON COLUMN clients.changed_at IS 'When the admin API or the command line wrote it last.';
COMMENT ON COLUMN clients.changed_by IS 'Who wrote it last; of a row written by hand, the database role that inserted it.';

COMMENT ON TABLE api_keys IS 'Keys by their SHA-256; the keys themselves are stored nowhere. Deleting a client revokes its keys.';
COMMENT ON COLUMN api_keys.id IS 'The part of the key that may be known: the middle of tg_<id>_<secret>.';
COMMENT ON COLUMN api_keys.sha256 IS 'SHA-256 of the whole key as it is sent.';
COMMENT ON COLUMN api_keys.client IS 'The client it stands for; of this database or of the file, hence no foreign key.';
COMMENT ON COLUMN api_keys.name IS 'What people call it.';
COMMENT ON COLUMN api_keys.scopes IS 'What it is good for; routes may ask for some of them.';
COMMENT ON COLUMN api_keys.created_at IS 'When it was made.';
COMMENT ON COLUMN api_keys.expires_at IS 'When it stops being valid; NULL: never.';
COMMENT ON COLUMN api_keys.revoked_at IS 'When it was revoked; NULL: it is valid.';
COMMENT ON COLUMN api_keys.last_used_at IS 'When it was last used, to a minute or two; NULL: never.';

COMMENT ON TABLE policies IS 'Limits. A row replaces the file''s policy of the same name as a whole; columns are named and written as in the file.';
COMMENT ON COLUMN policies.name IS 'Its name: a-z, 0-9, _ and -, 63 characters at most.';
COMMENT ON COLUMN policies.routes IS 'Names of the routes it applies to; NULL: every route.';
COMMENT ON COLUMN policies.key IS 'What is counted, in order: client, ip, route, tier, method, host, path, header:<name>, jwt:<claim>, global.';
COMMENT ON COLUMN policies.algorithm IS 'How it is counted: token_bucket, sliding_window, sliding_window_counter, fixed_window, leaky_bucket, concurrency.';
COMMENT ON COLUMN policies.quota IS 'What is allowed, as in the file: {"count": 30, "period": "60s"}.';
COMMENT ON COLUMN policies.cost IS 'Units one request takes; NULL: 1.';
COMMENT ON COLUMN policies.consistency IS 'strict or leased; NULL: strict.';
COMMENT ON COLUMN policies.lease_ttl IS 'How long units taken in advance live: a duration such as 100ms; NULL: 100ms.';
COMMENT ON COLUMN policies.on_outage IS 'local, allow or deny; NULL: local.';
COMMENT ON COLUMN policies.mode IS 'enforce, shadow or off; NULL: enforce.';
COMMENT ON COLUMN policies.methods IS 'Methods it applies to; NULL: all.';
COMMENT ON COLUMN policies.ipv6_prefix IS 'The prefix by which IPv6 clients are counted; NULL: 64.';
COMMENT ON COLUMN policies.status IS 'The status of its refusals; NULL: 429.';
COMMENT ON COLUMN policies.changed_at IS 'When the admin API or the command line wrote it last.';
COMMENT ON COLUMN policies.changed_by IS 'Who wrote it last; of a row written by hand, the database role that inserted it.';

COMMENT ON TABLE policy_tiers IS 'Quotas of policies for clients of a tier; they replace the policy''s own.';
COMMENT ON COLUMN policy_tiers.policy IS 'The policy.';
COMMENT ON COLUMN policy_tiers.tier IS 'The tier, of this database or of the file.';
COMMENT ON COLUMN policy_tiers.quota IS 'What is allowed, as in the file.';

COMMENT ON TABLE policy_overrides IS 'Quotas of policies for single clients; they replace the policy''s own and the tier''s.';
COMMENT ON COLUMN policy_overrides.policy IS 'The policy.';
COMMENT ON COLUMN policy_overrides.client IS 'The client''s id.';
COMMENT ON COLUMN policy_overrides.quota IS 'What is allowed, as in the file.';
COMMENT ON COLUMN policy_overrides.expires_at IS 'When it ceases to apply; NULL: never.';

COMMENT ON TABLE route_settings IS 'What is set of routes of the file without a restart. A row replaces the file''s settings as a whole.';
COMMENT ON COLUMN route_settings.route IS 'The route''s name.';
COMMENT ON COLUMN route_settings.enabled IS 'false: the route is not there; NULL: true.';
COMMENT ON COLUMN route_settings.maintenance IS 'true: answered 503 without asking the upstream; NULL: false.';
COMMENT ON COLUMN route_settings.upstream IS 'The upstream instead of the route''s own; NULL: its own.';
COMMENT ON COLUMN route_settings.canary IS 'A share of the requests for another upstream: {"upstream": "orders-v2", "weight": 10}, in percent; NULL: none.';
COMMENT ON COLUMN route_settings.timeout IS 'How long the upstream may take: a duration such as 5s; NULL: as the upstream says.';
COMMENT ON COLUMN route_settings.max_concurrent IS 'Requests in flight at most, per gateway; NULL: no limit.';
COMMENT ON COLUMN route_settings.cost IS 'Units one request takes, times the policy''s cost; NULL: 1.';
COMMENT ON COLUMN route_settings.changed_at IS 'When the admin API or the command line wrote it last.';
COMMENT ON COLUMN route_settings.changed_by IS 'Who wrote it last; of a row written by hand, the database role that inserted it.';

COMMENT ON TABLE revisions IS 'Who changed what through the admin API or the command line. Rows edited by hand leave none.';
COMMENT ON COLUMN revisions.id IS 'Grows with time.';
COMMENT ON COLUMN revisions.at IS 'When.';
COMMENT ON COLUMN revisions.by IS 'Who: the name an admin token goes by, or cli:<user>.';
COMMENT ON COLUMN revisions.kind IS 'policy, tier, client, route_settings or key.';
COMMENT ON COLUMN revisions.name IS 'The name of what was changed, or the id of a client or key.';
COMMENT ON COLUMN revisions.before IS 'The document before; NULL: it did not exist.';
COMMENT ON COLUMN revisions.after IS 'The document after; NULL: it was deleted.';
COMMENT ON COLUMN revisions.rolled_back_from IS 'The revision that this one took back, unless it is not kept any more.';

COMMENT ON TABLE changes IS 'What has changed, for running gateways to follow; written by triggers, kept for a day.';
COMMENT ON COLUMN changes.id IS 'Grows, but not in the order of commits.';
COMMENT ON COLUMN changes.txid IS 'The transaction that made the change; gateways read those that were not visible when they last looked.';
COMMENT ON COLUMN changes.at IS 'When.';
COMMENT ON COLUMN changes.kind IS 'rows (policies, tiers, settings of routes), key or client.';
COMMENT ON COLUMN changes.subject IS 'The SHA-256 of a key in hexadecimal, or the id of a client; NULL: all of them.';

COMMENT ON TABLE schema_history IS 'Migrations that have been applied; written by tidegate migrate.';
COMMENT ON COLUMN schema_history.version IS 'The version of the schema that the migration led to.';
COMMENT ON COLUMN schema_history.name IS 'The name of the migration''s file.';
COMMENT ON COLUMN schema_history.applied_on IS 'When, as RFC 3339.';
COMMENT ON COLUMN schema_history.checksum IS 'A hash of the migration, so that one that was edited later is noticed.';
