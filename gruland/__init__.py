"""Study what regularization does to a recurrent network."""

__version__ = "0.1.0"
