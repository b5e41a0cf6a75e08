"""Real servers that tests start for themselves and stop again: PostgreSQL and an S3-compatible store."""
