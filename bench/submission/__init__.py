"""Submissions: prepare and pack (submit, pack), verify (verify, spot, reproduce) and record the verdict (verdict)."""
