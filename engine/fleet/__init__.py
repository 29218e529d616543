"""Many sites seen from one place: a list of them, their states by HTTP, their entries in Redis, and their users.

1. ``site_list``: the file that names the sites, read and checked as a whole.
2. ``http_get``, ``answers``, ``asking``: what each site's API says, asked of all side by side.
3. ``registry``: the sites that a Redis knows.
4. ``accounts``, ``definitions``: the users, rights and vhosts of all sites, as files for Redis and RabbitMQ.
"""
