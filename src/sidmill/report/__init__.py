"""What a person sees of a run: plots and the SID explorer."""
