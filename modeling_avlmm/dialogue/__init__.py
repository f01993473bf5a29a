"""Questions and answers about a clip: instruction data, conversations, the analyst and its benchmark."""
