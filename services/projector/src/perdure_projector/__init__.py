"""The projector as a service: `python -m perdure_projector`."""
