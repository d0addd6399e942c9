"""Submissions: the way in (submit), and the way to trust (verify: bundle and runs; repeat; verdict)."""
