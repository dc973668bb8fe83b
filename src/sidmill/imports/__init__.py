"""Published data sets -> a catalogue, an interaction log and an overlay that runs."""
