"""The commands of `loadshed` that serve deployments."""
