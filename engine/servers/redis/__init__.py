"""Redis and Valkey.

1. ``errors``: translates errors of Redis into the engine's errors.
2. ``connection``: one connection to one server.
3. ``sentinel``: the master of a Sentinel service.
4. ``cluster``: which node of a cluster has which keys.
5. ``connect``: a connection for any kind of address; identifies the server.
6. ``session``: a connection for callers that ask occasionally.
"""
