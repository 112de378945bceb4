"""From a Plan to layers: content-addressed files taken from the prefix, from wheels, from source trees."""
