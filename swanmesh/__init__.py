"""swanmesh: keeps a full mesh of IPsec transport-mode associations between hosts, through strongSwan."""

__version__ = "0.1.0"
