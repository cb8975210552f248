-- Creates the roles of the two URLs. They have no password yet.
--   app_owner  owns the schema and migrates it (DATABASE_URL_SYNC)
--   app        reads and writes rows (DATABASE_URL)
--
-- Run by an administrator who is connected to the application's database: a superuser, or
-- a role that can create roles and owns the database and the schema public. Running it again
-- changes nothing.
-- `uv run dev` runs it on the embedded server whenever it has changed.

BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp; -- no function of app_owner's in place of another

DO $$
BEGIN
    IF to_regrole('app_owner') IS NULL THEN
        CREATE ROLE app_owner LOGIN;
    END IF;
    IF to_regrole('app') IS NULL THEN
        CREATE ROLE app LOGIN;
    END IF;
    -- An administrator who is no superuser must be a member of app_owner for what follows.
    IF NOT pg_has_role('app_owner', 'USAGE') THEN
        GRANT app_owner TO CURRENT_USER;
    END IF;
    -- Lets migrations see which session of the application holds a table.
    IF NOT pg_has_role('app_owner', 'app', 'USAGE') THEN
        GRANT app TO app_owner;
    END IF;
    -- Another role, for example of a monitor, needs its own GRANT CONNECT.
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT ALL ON DATABASE %I TO app_owner', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO app', current_database());
    -- By default, every role of the server may connect to postgres and template1, and may create
    -- large objects in this database. A superuser revokes both, for every role: one that needs
    -- postgres or template1 gets its own GRANT CONNECT.
    IF current_setting('is_superuser')::bool THEN
        REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
        REVOKE EXECUTE ON FUNCTION lo_creat(int), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC;
    END IF;
END
$$;

ALTER SCHEMA public OWNER TO app_owner;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO app;

-- app may use the objects that later migrations create.
ALTER DEFAULT PRIVILEGES FOR ROLE app_owner
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO app;
ALTER DEFAULT PRIVILEGES FOR ROLE app_owner GRANT SELECT, USAGE ON SEQUENCES TO app;
ALTER DEFAULT PRIVILEGES FOR ROLE app_owner GRANT USAGE ON SCHEMAS TO app;

-- Alembic's table, which app only reads.
DO $$
BEGIN
    IF to_regclass('public.alembic_version') IS NULL THEN
        CREATE TABLE public.alembic_version (
            version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY
        );
        ALTER TABLE public.alembic_version OWNER TO app_owner;
    END IF;
END
$$;

-- Existing objects.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app;
GRANT SELECT, USAGE ON ALL SEQUENCES IN SCHEMA public TO app;
REVOKE INSERT, UPDATE, DELETE ON public.alembic_version FROM app;

-- An extension that only a superuser can create belongs here as well:
-- CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;

-- A REVOKE without effect only warns, so check the result.
DO $$
BEGIN
    IF has_database_privilege('app', current_database(), 'CREATE, TEMPORARY')
        OR has_schema_privilege('app', 'public', 'CREATE')
    THEN
        RAISE 'the role app can still create tables in %', current_database()
            USING HINT = 'It must be no superuser and own neither database nor schema.';
    END IF;
END
$$;

COMMIT;
