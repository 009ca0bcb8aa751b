"""What Airflow tells us of what people do to tasks."""
