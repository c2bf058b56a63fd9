"""Supervision of tasks: retries, time-outs, heartbeats, cancel, and what people decide about a task.

Pure. It never runs or relays a task's outcome for a workflow's task whose attempt went well: the worker
tells the workflow engine itself, and this engine only learns that its watch is over.
"""
