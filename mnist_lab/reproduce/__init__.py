"""The tutorials' presets over several seeds, beside what was published."""
