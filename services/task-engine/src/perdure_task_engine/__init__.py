"""The task engine as a service: `python -m perdure_task_engine`."""
