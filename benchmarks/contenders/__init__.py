"""One contender a file; each runs in a process of its own, so that its imports and children are its own."""
