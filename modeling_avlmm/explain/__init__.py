"""Why a detector says what it says: attribution, face regions, measured evidence, and a verdict in words."""
