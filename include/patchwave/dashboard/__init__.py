"""The ledger's pages in Airflow's UI: what a run does, what it waits for, who decided. Reads only."""
