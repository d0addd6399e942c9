"""Web leaderboard of a store. Read-only; imports only `results` and `safe_io`."""
