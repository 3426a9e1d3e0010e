"""Opening: from a folder to a model whose layers know their role, their matrices and where their weights lie."""
