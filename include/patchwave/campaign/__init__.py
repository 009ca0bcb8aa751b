"""The domain: what a patch campaign is and decides, in plain Python.

No module here knows Airflow, AWS's client library, a database, the clock or the environment: time, ids and facts come in
as arguments, decisions go out as values.
"""
