"""Tests of whole running services: real processes, real Ray, real HTTP."""
