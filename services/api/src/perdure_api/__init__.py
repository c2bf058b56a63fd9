"""The HTTP API as a service: `python -m perdure_api`."""
