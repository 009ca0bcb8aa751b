"""The command line: what it starts, asks, answers and prints."""
