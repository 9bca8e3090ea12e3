"""Builders of the children: pure functions of the spec and of what was observed. No client, clock, chance or environment."""
