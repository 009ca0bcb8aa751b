"""`python -m patchwave`: starts Airflow and awsim as processes, imports neither, and shows what a campaign does."""
