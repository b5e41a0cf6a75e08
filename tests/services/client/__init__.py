"""Tests of the Python client and the command line against a real HTTP server."""
