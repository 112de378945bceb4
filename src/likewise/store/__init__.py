"""Where the client keeps layers, manifests and kits: a local directory."""
