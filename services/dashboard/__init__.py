"""The dashboard: server-rendered pages over the store, with a few small ES modules for charts and live updates.

Mounted in the API's process, behind its authorisation: include `routes.router` and serve `routes.static_folder` at
`/static`. Imports neither torch nor ray, and nothing of the API, the scheduler or the cluster.
"""
