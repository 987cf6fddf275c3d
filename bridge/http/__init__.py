"""HTTP below any route: the server with its limits, TLS, access, problems, the admin pages.

Owns sockets, connections and what strangers may take of them. Must not know of notifications,
Redis or settings. Start reading at `server.py`.
"""
