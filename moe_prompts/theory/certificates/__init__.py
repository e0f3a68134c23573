"""Check certificates of rates from the definition of the atoms alone.

verify  holds the entry points ``verify`` and ``verify_table``
basis   takes derivatives from the explicit functions, and holds what all checks share
ranks   checks identities, minors, ranks and first orders
bounds  checks upper and lower bounds on theta
limits  limits how large a certificate may be
"""
