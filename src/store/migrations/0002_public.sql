-- What a restart needs to serve public proxies again before it tests them, and to keep away from those that were caught.
ALTER TABLE public_proxies ADD COLUMN login TEXT;
ALTER TABLE public_proxies ADD COLUMN through TEXT NOT NULL DEFAULT 'direct';
ALTER TABLE public_proxies ADD COLUMN several INTEGER NOT NULL DEFAULT 0;
ALTER TABLE public_proxies ADD COLUMN condemned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE public_proxies ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE public_proxies ADD COLUMN passed INTEGER NOT NULL DEFAULT 0;
