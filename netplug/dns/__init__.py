"""The embedded name server: a process of its own that reads the records of the state file."""
