-- The columns that a gateway needs after a restart to serve public proxies before it tests them again, and to avoid the
-- proxies that were condemned.
ALTER TABLE public_proxies ADD COLUMN login TEXT;
ALTER TABLE public_proxies ADD COLUMN through TEXT NOT NULL DEFAULT 'direct';
ALTER TABLE public_proxies ADD COLUMN several INTEGER NOT NULL DEFAULT 0;
ALTER TABLE public_proxies ADD COLUMN condemned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE public_proxies ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE public_proxies ADD COLUMN passed INTEGER NOT NULL DEFAULT 0;
