"""HTML pages with the results of a run or a sweep."""
