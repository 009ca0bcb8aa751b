"""Our own database: plans, dispatches, host states, decisions, waits and the journal."""
