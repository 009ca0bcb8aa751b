"""Airflow operators: thin shells that ask the gateway, call one domain function, record, then wait or return an id."""
