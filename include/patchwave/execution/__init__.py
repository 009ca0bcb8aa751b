"""A stage carried out between the gateway and the ledger, without Airflow: whoever has both can drive it, or stop it."""
