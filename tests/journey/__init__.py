"""Whole campaigns in a real Airflow against awsim, judged by awsim's journal.

One Airflow and one awsim carry all journeys at once; a cell (account and region) of its own keeps them apart. Each module
has ``CAMPAIGN``, the DAG it is about, and mostly ``drive``, what people do during its run; the tests judge what came of it.
"""
