"""Redis and Valkey.

1. ``errors``: what goes wrong, as errors of ours.
2. ``connection``: one connection to one server.
3. ``sentinel``: the master of a Sentinel service.
4. ``connect``: a connection for any kind of address; what the server says it is.
5. ``session``: a connection for whoever asks now and then.
"""
