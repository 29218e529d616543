"""Servers and cameras that the tests run against: real ones, each private to one test."""
