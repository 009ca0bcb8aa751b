"""Airflow triggers: they look and end; they send nothing, yield once, and not in their first seconds."""
