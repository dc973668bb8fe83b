"""One module for each published form; ``sidmill.settings.registry.SOURCES`` lists them."""
