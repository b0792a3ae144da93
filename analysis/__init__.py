"""What was learnt: selection, export and figures. Plain numbers in; no torch, no Ray."""
