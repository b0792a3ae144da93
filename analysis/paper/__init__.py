"""The paper's claims, judged by the runs of a sweep."""
