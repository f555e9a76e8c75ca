"""Domain adaptation that cannot make things worse: the shift is measured, candidates race, doing nothing is one."""
