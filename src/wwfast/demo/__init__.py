"""One real boot on this machine: the demo, and the laboratory its tests share."""
