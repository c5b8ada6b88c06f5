"""HTML pages of the results of a run or a sweep."""
