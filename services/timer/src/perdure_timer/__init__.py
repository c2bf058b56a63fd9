"""The timer service as a service: `python -m perdure_timer`."""
