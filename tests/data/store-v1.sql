PRAGMA foreign_keys = OFF; -- tables stand in the order of their names
CREATE TABLE bans (
    site  TEXT NOT NULL,
    exit  TEXT NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER NOT NULL,
    why   TEXT NOT NULL,
    PRIMARY KEY (site, exit)
) STRICT, WITHOUT ROWID;
INSERT INTO "bans" VALUES('steamcommunity.com','0101010101010101010101010101010101010101',5,9223372036854775807,'403');
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
INSERT INTO "checks" VALUES(1,1,'echo',50,'passed','','203.0.113.7',200,NULL,NULL,40000,NULL,NULL);
CREATE TABLE exits (
    number     INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    facts      TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL
) STRICT;
INSERT INTO "exits" VALUES(1,'0101010101010101010101010101010101010101','{"nickname": "Quintex152", "announced": ["204.8.96.141"], "country": "US", "asn": 62744, "as_name": "Quintex", "policy": "accept 80,443", "policy_v6": "accept 443", "running": true, "stable": true, "fast": false, "bad_exit": false, "weight": 3600}',6,7);
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "meta" VALUES('events','17');
CREATE TABLE observed (
    exit  INTEGER NOT NULL REFERENCES exits ON DELETE CASCADE,
    ip    TEXT NOT NULL,
    first INTEGER NOT NULL,
    last  INTEGER NOT NULL,
    times INTEGER NOT NULL,
    PRIMARY KEY (exit, ip)
) STRICT, WITHOUT ROWID;
INSERT INTO "observed" VALUES(1,'203.0.113.7',50,50,1);
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
INSERT INTO "pins" VALUES('team-a','us-strict','','0101010101010101010101010101010101010101','203.0.113.7',2,3,2592000000000,0,1);
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
INSERT INTO "public_proxies" VALUES('socks5://192.0.2.1:1080','socks5','proxifly',1,20000,0,9,9,1,'elite',1,1,'US','203.0.113.9');
CREATE TABLE routes (
    name     TEXT PRIMARY KEY,
    selector TEXT NOT NULL,
    port     INTEGER UNIQUE CHECK (port BETWEEN 1 AND 65535),
    asked    TEXT NOT NULL,
    created  INTEGER NOT NULL,
    expires  INTEGER
) STRICT, WITHOUT ROWID;
INSERT INTO "routes" VALUES('us-strict','us-strict',20001,'{"geo_category":"US"}',1,NULL);
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
INSERT INTO "sessions" VALUES('','any','Cart42','socks5://192.0.2.1:1080',3,4,9223372036854775803,0,9223372036854775807);
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
INSERT INTO "sources" VALUES('onionoo','"x"',NULL,8,NULL,NULL,NULL,'fresh','',2000,0,0);
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
INSERT INTO "verdicts" VALUES(1,'echo','good',3,50,50,120000,'');
CREATE INDEX sessions_by_end ON sessions (ends);
CREATE INDEX bans_by_end ON bans (until);
CREATE INDEX checks_of_exit ON checks (exit, id);
CREATE INDEX checks_by_age ON checks (at);
CREATE INDEX public_by_speed ON public_proxies (working, response_time);
CREATE INDEX public_by_country ON public_proxies (country, working, response_time);
CREATE INDEX public_by_protocol ON public_proxies (protocol, working, response_time);
CREATE INDEX public_by_test ON public_proxies (working, last_tested);
PRAGMA user_version = 1;
