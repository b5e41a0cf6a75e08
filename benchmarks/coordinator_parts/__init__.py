"""Parts of the coordinator's benchmark."""
