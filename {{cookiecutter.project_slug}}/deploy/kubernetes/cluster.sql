-- Runs after roles.sql when CloudNativePG creates the cluster.

-- roles.sql revokes this. The operator's roles need it: pg_rewind, after a failover, and metrics.
GRANT CONNECT ON DATABASE postgres TO PUBLIC;

-- Behind a pooler the application cannot set these limits itself.
ALTER ROLE app SET lock_timeout = '5s';
ALTER ROLE app SET idle_in_transaction_session_timeout = '60s';
