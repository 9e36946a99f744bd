"""The study: a network's layer as H-matrices, measured (needs the extra ``study``)."""
