#!/bin/sh
# Run once by the image, when the volume is empty: the same role, database and extensions that
# assistant/embedded/postgres.py makes. The role is no superuser, so row-level security binds it.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$POSTGRES_PASSWORD" --username postgres <<'SQL'
CREATE ROLE assistant LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD :'password';
CREATE ROLE assistant_reader NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
GRANT assistant_reader TO assistant WITH INHERIT FALSE, SET TRUE;
CREATE DATABASE assistant OWNER assistant;
REVOKE CONNECT ON DATABASE assistant FROM PUBLIC;
\connect assistant
CREATE EXTENSION vector;
CREATE EXTENSION pg_trgm;
CREATE EXTENSION unaccent;
CREATE EXTENSION btree_gin;
-- The superuser is left without a password: it comes in from inside the container alone.
ALTER ROLE postgres PASSWORD NULL;
SQL
