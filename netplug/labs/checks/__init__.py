"""Checks of labs, by what they look at; `registry` lists them, `base` says what one is."""
