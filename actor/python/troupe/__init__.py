"""Troupe from Python: rows in, windows out, and the policies that were learned of them.

    Writer        rows of one's own loop into a replay table
    Sampler       windows of a table as numpy arrays
    Follower      every row of a table, in order
    Subscriber    the newest policy as it is published
    Run           a cluster on this machine
"""
