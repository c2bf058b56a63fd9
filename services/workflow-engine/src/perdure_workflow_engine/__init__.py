"""The workflow engine as a service: `python -m perdure_workflow_engine`."""
