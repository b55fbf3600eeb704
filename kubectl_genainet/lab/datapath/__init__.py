"""Devices, addresses and packet rules of a lab."""
