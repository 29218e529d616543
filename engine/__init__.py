"""Edge Video Engine: cameras into Redis, their metadata into RabbitMQ, on an edge box."""

__version__ = "0.1.0"
