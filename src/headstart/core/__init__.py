"""Values and rules: types, protocols, settings, plans, hashing, registry, errors. No torch, no numpy."""
