"""Patch campaigns on AWS as Airflow DAGs."""
