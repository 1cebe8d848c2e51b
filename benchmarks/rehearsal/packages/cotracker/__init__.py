"""Stand-in for the package cotracker (CC-BY-NC), of its interface and none of its code."""
