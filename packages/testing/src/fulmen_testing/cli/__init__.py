"""The verb of the kit."""
