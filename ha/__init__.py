"""Coordination: who may own a context, who tries to, and how that is found out. Knows nothing of jobs, SQL or HTTP."""
