"""Grounded records in GRIT form: read, checked, written."""
