"""Pure computation that every engine shares: events, features, labels, scores and evaluation. No clock, no I/O by itself."""
