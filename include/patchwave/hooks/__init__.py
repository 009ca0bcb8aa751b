"""Airflow's connections and environment, turned into Patchwave's own objects."""
