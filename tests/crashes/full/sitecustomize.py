"""Fills the ledger's disk for as long as a file lies there: SQLite itself then says "database or disk is full".

Lies on the PYTHONPATH of one Airflow only (`moments.the_ledgers_disk_is_full_for_a_minute`); filling a real disk needs one of
its own, and mounting that needs root.
"""

import os
import sqlite3
import sqlite3.dbapi2

FILE = "PATCHWAVE_TESTS_DISK_FULL"
"""Environment variable: while that file is there, the disk is full."""
LEDGER = "ledger.db"

connect = sqlite3.connect


def connect_to_a_full_disk(database, *args, **named):
    """As `sqlite3.connect`; the ledger gets not one page more than it has."""
    connection = connect(database, *args, **named)
    if str(database).endswith(LEDGER) and os.path.exists(os.environ.get(FILE, "")):
        connection.execute("PRAGMA max_page_count = 1")
    return connection


sqlite3.connect = sqlite3.dbapi2.connect = connect_to_a_full_disk
