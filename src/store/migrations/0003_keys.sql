-- Keys that the API created. Keys of the configuration are only in the configuration.
CREATE TABLE keys (
    name    TEXT PRIMARY KEY,
    digest  BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    asked   TEXT NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER
) STRICT, WITHOUT ROWID;

-- What each key has used. `created` is that of the key, and 0 for a key of the configuration: a new key with the name of
-- a deleted key does not continue its counts. `source` is empty for all sources together. A day is the number of days
-- since 1970, a month is the number of months since the year 0. The columns `before_…` are for the day and the month
-- that were in force before: they are needed if the clock is set back.
CREATE TABLE key_usage (
    key                   TEXT NOT NULL,
    created               INTEGER NOT NULL,
    source                TEXT NOT NULL,
    day                   INTEGER NOT NULL,
    day_requests          INTEGER NOT NULL,
    day_bytes             INTEGER NOT NULL,
    before_day            INTEGER NOT NULL,
    before_day_requests   INTEGER NOT NULL,
    before_day_bytes      INTEGER NOT NULL,
    month                 INTEGER NOT NULL,
    month_requests        INTEGER NOT NULL,
    month_bytes           INTEGER NOT NULL,
    before_month          INTEGER NOT NULL,
    before_month_requests INTEGER NOT NULL,
    before_month_bytes    INTEGER NOT NULL,
    PRIMARY KEY (key, created, source)
) STRICT, WITHOUT ROWID;
