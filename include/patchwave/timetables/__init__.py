"""Airflow timetables: when a campaign starts by itself."""
