"""Background jobs on PostgreSQL: enqueued in a transaction, run by the worker after its commit."""
