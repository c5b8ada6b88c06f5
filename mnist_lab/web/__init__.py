"""A network in a web page: its graph and weights as data, the page that runs it, and a server for it."""
