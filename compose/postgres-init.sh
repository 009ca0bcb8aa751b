# Runs once, when PostgreSQL's data folder is made: the ledger gets a database and a user of its own, which cannot see Airflow's.
psql -v ON_ERROR_STOP=1 -v password="$LEDGER_PASSWORD" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE USER patchwave PASSWORD :'password';
CREATE DATABASE patchwave_ledger OWNER patchwave ENCODING 'UTF8' TEMPLATE template0;
REVOKE CONNECT ON DATABASE airflow FROM PUBLIC;
REVOKE CONNECT ON DATABASE patchwave_ledger FROM PUBLIC;
SQL
