"""The line of those who wait: by class, by tenant, by age.

- `line`: all of them, with one bound.
- `lane`: those of one class, which share its turns fairly among their tenants.
- `row`: those of one tenant in it.
"""
