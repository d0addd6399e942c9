"""The leaderboard. Reads files only; imports nothing but results and pretrain_sources.card."""
