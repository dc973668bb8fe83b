"""Settings are types: one frozen dataclass for each section of config.yaml."""
