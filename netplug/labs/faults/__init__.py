"""Faults of labs, by layer; `catalogue` lists them, `base` says what one is."""
