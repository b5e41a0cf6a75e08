"""SQL is the truth: typed models, migrations, one module of functions per resource, and the artifact bytes.

Imports neither torch nor ray. Every function takes a session opened by `database.Database`.
"""
