"""The Kubernetes operator: it makes the cluster be what `Worker`, `Workflow` and `Connection` resources say.

What is wanted (`resources`, `builds`, `desired`), how many pods (`scaling`), which build gets new runs (`rollout`) and
what is told (`status`) are pure functions of what was read. `reconcile` reads, asks them, and does what they say
through the ports. Nothing here knows the SDK, the engines or a broker: the API and the workers' probes are asked.
"""
