"""Looking after a service's database and artifacts: backup, restore, garbage collection, migration."""
