"""From a catalogue in any accepted form to one text per item, and the demo catalogue."""
