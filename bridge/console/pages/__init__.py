"""The pages, one module each, with its routes and its place in the navigation.

Owns which question each page asks of operations. Must not hold state, nor decide who may look. A
new page is a module here and a line in `bridge.console.navigation`. Start reading at `overview.py`.
"""
