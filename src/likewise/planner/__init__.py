"""From a Snapshot and a Target to a Plan: what happens to each distribution, and why."""
