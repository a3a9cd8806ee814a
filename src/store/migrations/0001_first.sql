-- Times are microseconds since the Unix epoch, and durations are microseconds. An exit has the same name as everywhere
-- in the program: a fingerprint, the URL of a proxy, or `direct`. A table whose rows are only looked up by key has no
-- rowids, because each row is then stored in one tree only.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Routes that the API created. Routes of the configuration are only in the configuration.
CREATE TABLE routes (
    name     TEXT PRIMARY KEY,
    selector TEXT NOT NULL,
    port     INTEGER UNIQUE CHECK (port BETWEEN 1 AND 65535),
    asked    TEXT NOT NULL,
    created  INTEGER NOT NULL,
    expires  INTEGER
) STRICT, WITHOUT ROWID;

-- The column `session` is empty for a pin without a session: no session has an empty name.
CREATE TABLE pins (
    key       TEXT NOT NULL,
    scope     TEXT NOT NULL,
    session   TEXT NOT NULL,
    exit      TEXT NOT NULL,
    ip        TEXT NOT NULL,
    made      INTEGER NOT NULL,
    used      INTEGER NOT NULL,
    span      INTEGER NOT NULL,
    fixed     INTEGER NOT NULL,
    exclusive INTEGER NOT NULL,
    PRIMARY KEY (key, scope, session)
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    key     TEXT NOT NULL,
    scope   TEXT NOT NULL,
    session TEXT NOT NULL,
    exit    TEXT NOT NULL,
    bound   INTEGER NOT NULL,
    used    INTEGER NOT NULL,
    span    INTEGER NOT NULL,
    fixed   INTEGER NOT NULL,
    ends    INTEGER NOT NULL,
    PRIMARY KEY (key, scope, session)
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_end ON sessions (ends);

CREATE TABLE bans (
    site  TEXT NOT NULL,
    exit  TEXT NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER NOT NULL,
    why   TEXT NOT NULL,
    PRIMARY KEY (site, exit)
) STRICT, WITHOUT ROWID;
CREATE INDEX bans_by_end ON bans (until);

-- In tables that grow, a number stands for an exit, because this makes a row of `checks` two thirds shorter.
CREATE TABLE exits (
    number     INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    facts      TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL
) STRICT;

CREATE TABLE observed (
    exit  INTEGER NOT NULL REFERENCES exits ON DELETE CASCADE,
    ip    TEXT NOT NULL,
    first INTEGER NOT NULL,
    last  INTEGER NOT NULL,
    times INTEGER NOT NULL,
    PRIMARY KEY (exit, ip)
) STRICT, WITHOUT ROWID;

CREATE TABLE verdicts (
    exit     INTEGER NOT NULL REFERENCES exits ON DELETE CASCADE,
    target   TEXT NOT NULL,
    standing TEXT NOT NULL,
    streak   INTEGER NOT NULL,
    checked  INTEGER NOT NULL,
    good     INTEGER,
    latency  INTEGER,
    why      TEXT NOT NULL,
    PRIMARY KEY (exit, target)
) STRICT, WITHOUT ROWID;

CREATE TABLE checks (
    id         INTEGER PRIMARY KEY,
    exit       INTEGER NOT NULL REFERENCES exits ON DELETE CASCADE,
    target     TEXT NOT NULL,
    at         INTEGER NOT NULL,
    outcome    TEXT NOT NULL,
    detail     TEXT NOT NULL,
    ip         TEXT,
    status     INTEGER,
    circuit    INTEGER,
    connect    INTEGER,
    tls        INTEGER,
    first_byte INTEGER,
    total      INTEGER
) STRICT;
CREATE INDEX checks_of_exit ON checks (exit, id);
CREATE INDEX checks_by_age ON checks (at);

CREATE TABLE sources (
    name          TEXT PRIMARY KEY,
    etag          TEXT,
    last_modified TEXT,
    attempt       INTEGER,
    good          INTEGER,
    next          INTEGER,
    published     INTEGER,
    outcome       TEXT NOT NULL,
    why           TEXT NOT NULL,
    records       INTEGER NOT NULL,
    skipped       INTEGER NOT NULL,
    failures      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE public_proxies (
    url           TEXT PRIMARY KEY,
    protocol      TEXT NOT NULL,
    list          TEXT NOT NULL,
    working       INTEGER NOT NULL,
    response_time INTEGER,
    failed_count  INTEGER NOT NULL,
    last_tested   INTEGER,
    last_working  INTEGER,
    created_at    INTEGER NOT NULL,
    anonymity     TEXT NOT NULL,
    https         INTEGER NOT NULL,
    connect       INTEGER NOT NULL,
    country       TEXT,
    exit_ip       TEXT
) STRICT, WITHOUT ROWID;
-- The API lists working proxies, fastest first, of one country, of one protocol or of all. The testers ask for the
-- proxies that were tested longest ago.
CREATE INDEX public_by_speed ON public_proxies (working, response_time);
CREATE INDEX public_by_country ON public_proxies (country, working, response_time);
CREATE INDEX public_by_protocol ON public_proxies (protocol, working, response_time);
CREATE INDEX public_by_test ON public_proxies (working, last_tested);
