"""All input and output of Perdure: ports, the driver, and the adapters behind the ports."""
