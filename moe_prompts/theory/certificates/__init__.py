"""Certificates of rates, checked from the definition of the atoms alone.

verify   verify, verify_table: the entry points
basis    derivatives from the explicit functions, and what all checks share
ranks    checks of identities, minors, ranks and first orders
bounds   checks of upper and lower bounds on theta
"""
