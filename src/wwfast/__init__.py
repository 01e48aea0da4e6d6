"""wwfast: stateless cluster provisioning in the Warewulf model, at the speed of the link."""

__version__ = "0.1.0"
