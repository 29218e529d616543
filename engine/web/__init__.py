"""HTTP: metrics, health, API, dashboard. The web process reads shared memory and Redis, and changes neither."""
