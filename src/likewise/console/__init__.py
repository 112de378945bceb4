"""What people see: events while they happen, reports as tables. Used by the command line and by Cluster."""
