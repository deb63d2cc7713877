"""The warm process that does a plugin's work, and the launchers that engines execute."""
