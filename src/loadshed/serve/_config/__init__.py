"""The config file: what it may say, reading it, writing it, and what a container needs with it."""
