"""What every service of a cluster is made of: settings, logs, probes, and a life from start to drain."""
