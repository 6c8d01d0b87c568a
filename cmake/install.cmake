# Filled in with the first installed header set.
