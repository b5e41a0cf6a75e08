"""Tests of the REST surface: the real application over a real SQLite file and a real artifact folder, without Ray or torch."""
