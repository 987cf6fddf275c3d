"""Redis: one supervised link, its Sentinel and Cluster forms, rights, and whose a namespace is.

Owns connections and what error replies mean; driver errors end at `link.py`. Must not know what
is sent over a link, or by whom. Start reading at `link.py`.
"""
